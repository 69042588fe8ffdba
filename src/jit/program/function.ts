/** Tracing of one function of a program: variables, inputs, outputs and assignments. */
import { isPromise } from '../../base/async.js';
import { isPieces, type Pieces } from '../../base/pieces.js';
import type * as tf from '@tensorflow/tfjs';
import { TracingError } from '../errors.js';
import { symbolic, traceInto, valueOf } from '../trace/backend.js';
import { describe, dtypeNumber } from '../../runtime/data_types.js';
import { FunctionGraph, type Value } from '../trace/graph.js';
import { attr, type FunctionText } from '../trace/graphdef.js';
import { infer } from '../trace/infer.js';
import { outline } from '../fusion/outline.js';
import type {
  DefineOptions,
  Dtype,
  TensorSpec,
  TracedFunction,
  TraceResult,
  VariableDtype,
  VariableSpec,
} from '../types.js';

/** How a variable is stored: int32 ones as int64, because under CUDA int32 variables live in host memory, where XLA cannot reach them. */
export function storedDtype(dtype: VariableDtype): Dtype {
  return dtype === 'int32' ? 'int64' : dtype;
}

/** A function after tracing. */
export interface Traced {
  name: string;
  inputs: Record<string, TensorSpec>;
  /** Shape and dtype of each output. */
  outputs: Record<string, TensorSpec>;
  /** Variables whose handles it takes, in order. */
  variables: string[];
  /** Variables that it assigns. */
  assigned: string[];
  text: FunctionText;
  /** Functions that it calls. */
  library: FunctionText[];
  xla: boolean;
  /** Whether it is not one program of XLA but calls several. */
  clusters: boolean;
  fn: TracedFunction;
}

const NAME = /^[A-Za-z][A-Za-z0-9_./-]*$/;

/** Checks a name that goes into a graph. @throws TracingError */
export function checkName(kind: string, name: string): void {
  if (!NAME.test(name)) {
    throw new TracingError(
      `The ${kind} name '${name}' is not allowed: it must start with a letter and hold letters, digits, '_', '.', '/' and '-' only.`,
      { name },
    );
  }
}

/** Node names inside functions allow less than variable names do. */
export function nodeName(name: string): string {
  return name.replace(/[^A-Za-z0-9_]/g, (c) => `_${c.charCodeAt(0).toString(16)}_`);
}

/** Appends a Cast to `graph` itself, whichever graph (the body of a loop) is being traced. */
function convert(graph: FunctionGraph, value: Value, dtype: Dtype): Value {
  if (value.dtype === dtype) return value;
  const { attrs, outputs } = infer('Cast', { DstT: attr.type(dtypeNumber(dtype)), Truncate: attr.bool(false) }, [
    value,
  ]);
  return graph.add('Cast', [value], attrs, outputs)[0]!;
}

/** Variables as tensors, read when first asked for. */
function variableReader(
  graph: FunctionGraph,
  variables: ReadonlyMap<string, VariableSpec>,
  override: (name: string) => tf.Tensor | undefined,
): Record<string, tf.Tensor> {
  const values = new Map<string, Value>();
  const target: Record<string, tf.Tensor> = {};
  return new Proxy(target, {
    get(_target, name) {
      if (typeof name !== 'string') return undefined;
      const replaced = override(name);
      if (replaced) return replaced;
      const spec = variables.get(name);
      if (!spec) {
        throw new TracingError(
          `'${graph.name}' reads the variable '${name}', which was not declared with variable().`,
          { name },
        );
      }
      let value = values.get(name);
      if (!value) {
        const stored = storedDtype(spec.dtype);
        value = convert(graph, graph.readVariable(nodeName(name), spec.shape, stored), spec.dtype);
        values.set(name, value);
      }
      return symbolic(value);
    },
    has: (_target, name) => typeof name === 'string' && variables.has(name),
    ownKeys: () => [...variables.keys()],
    getOwnPropertyDescriptor: (_target, name) =>
      typeof name === 'string' && variables.has(name)
        ? { enumerable: true, configurable: true, writable: false }
        : undefined,
  });
}

type Named = readonly [name: string, value: Value];

/** Where the tracing of a function takes variables from, and what becomes of its results. */
export interface Body {
  /** Returns values for outputs and for assigned variables. */
  (
    inputs: Record<string, tf.Tensor>,
    vars: (override?: (name: string) => tf.Tensor | undefined) => Record<string, tf.Tensor>,
  ): TraceResult | Pieces<TraceResult>;
}

/** @throws TracingError for what an async function returns */
export function refusePromise(name: string, result: unknown): void {
  if (!isPromise(result)) return;
  throw new TracingError(
    `'${name}' returned a promise: it is async, or gives what an asynchronous op gave. A function is traced in one go: use tensor ops alone (tf.where and not tf.whereAsync), and read values after the call.`,
    { name },
  );
}

/** Traces a function, in a trace (traceAtOnce, traceInPieces). @param options `outside`: data ids of eager tensors that `body` may use, and the inputs that stand for them */
export function* traceFunction(
  name: string,
  inputs: Record<string, TensorSpec>,
  variables: ReadonlyMap<string, VariableSpec>,
  body: Body,
  fn: TracedFunction,
  { xla = true, outside = new Map(), tensorflowProducts = false, compileOutlined = false }: DefineOptions = {},
): Pieces<Traced> {
  const graph = new FunctionGraph(nodeName(name), null, xla, tensorflowProducts);
  const parameters = Object.entries(inputs).map(([input, spec]) => {
    checkName('input', input);
    return [input, graph.parameter(`in_${nodeName(input)}`, spec.shape, spec.dtype)] as const;
  });
  const byName = new Map<string, Value>(parameters);
  const declared = new Map([...outside].map(([dataId, input]) => [dataId, byName.get(input)!]));
  const work = function* (): Pieces<{ outputs: Named[]; assigns: Named[] }> {
    const tensors = Object.fromEntries(parameters.map(([input, value]) => [input, symbolic(value)]));
    const made = body(tensors, (override = () => undefined) => variableReader(graph, variables, override));
    refusePromise(name, made);
    const result = isPieces(made) ? yield* made : made;
    yield;
    const outputs = Object.entries(result.outputs ?? {}).map(([output, x]) => {
      checkName('output', output);
      return [output, graph.local(valueOf(x))] as const;
    });
    const assigns = Object.entries(result.assign ?? {}).map(([variable, x]) => {
      const spec = variables.get(variable);
      if (!spec) {
        throw new TracingError(
          `'${name}' assigns the variable '${variable}', which was not declared with variable().`,
          { variable },
        );
      }
      const value = valueOf(x);
      if (describe(value) !== describe(spec)) {
        throw new TracingError(
          `'${name}' assigns ${describe(value)} to the variable '${variable}', which is ${describe(spec)}.`,
          { variable, got: describe(value), expected: describe(spec) },
        );
      }
      return [variable, graph.local(convert(graph, value, storedDtype(spec.dtype)))] as const;
    });
    return { outputs, assigns };
  };
  const { outputs, assigns } = yield* traceInto(graph, work, declared);
  yield;
  const whole = graph.finish(
    outputs.map(([output, value]) => [`out_${nodeName(output)}`, value] as const),
    assigns.map(([variable, value]) => [nodeName(variable), value] as const),
    {},
  );
  yield;
  const outlined = xla ? yield* outline(whole, graph, compileOutlined) : null;
  return {
    name,
    inputs,
    outputs: Object.fromEntries(outputs.map(([output, { shape, dtype }]) => [output, { shape: [...shape], dtype }])),
    variables: graph.variables(),
    assigned: assigns.map(([variable]) => variable),
    text: outlined?.outer ?? whole,
    library: [...graph.library, ...(outlined?.functions ?? [])],
    xla,
    clusters: outlined?.clusters ?? false,
    fn,
  };
}
