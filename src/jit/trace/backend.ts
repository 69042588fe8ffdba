/**
 * The tfjs backend 'graph': its tensors are symbolic and its kernels, those of tfjs-node, append nodes to the function
 * graph being traced. Nothing is executed, and no data exists but that of constants.
 */
import * as tf from '@tensorflow/tfjs';
import { atOnce, inPieces, isPieces, ownScopes, type Pieces, type Within } from '../../base/pieces.js';
import { Turns } from '../../base/turns.js';
import { TracingError } from '../errors.js';
import { describe, tfjsLabel } from '../../runtime/data_types.js';
import { constantValue, type Cut, type FunctionGraph, type Value } from './graph.js';
import { attr, type Attr, type Attrs } from './graphdef.js';
import { infer } from './infer.js';
import { nodeBackend, type Binding, type NativeAttr } from '../../runtime/binding.js';
import type { Dtype } from '../types.js';

/** Name of the backend that traces. A kernel registered for it takes part in traces. */
export const GRAPH_BACKEND = 'graph';

interface Entry {
  value: Value;
  refCount: number;
}

type Values = Parameters<tf.KernelBackend['write']>[0];

/** What a trace under way consists of; one that others interrupt is put aside as a whole. */
interface Underway {
  /** The graphs being traced, innermost last. */
  readonly stack: FunctionGraph[];
  /** Tensors from outside that the function being traced declared: data id -> argument. */
  outside: ReadonlyMap<object, Value>;
  /** Of the first value that was asked for asynchronously. */
  awaited: TracingError | null;
}

const nothing = (): Underway => ({ stack: [], outside: new Map(), awaited: null });

function toAttr(native: NativeAttr, binding: Binding): Attr {
  const { type, value } = native;
  switch (type) {
    case binding.TF_ATTR_TYPE:
      return attr.type(value as number);
    case binding.TF_ATTR_INT:
      return attr.int(value as number | number[]);
    case binding.TF_ATTR_FLOAT:
      return { kind: 'float', value: value as number | number[] };
    case binding.TF_ATTR_BOOL:
      return attr.bool(Boolean(value));
    case binding.TF_ATTR_STRING:
      return attr.string(value as string);
    case binding.TF_ATTR_SHAPE:
      return attr.shape(value as number[]);
    default:
      throw new TracingError(`Attribute '${native.name}' has a type (${type}) that cannot be traced.`, { ...native });
  }
}

/** tfjs-node's backend, abstractly. Kernels reach for the members below and no others. */
class GraphBackend extends tf.KernelBackend {
  private entries = new Map<object, Entry>();
  underway = nothing();
  readonly isGPUPackage = true;
  readonly isUsingGpuDevice = false;
  /** Kernels take attribute constants from here. */
  readonly binding = nodeBackend().binding;
  /** Kernels that use these get the tensorflow backend's, bound to this one. */
  readonly getDTypeInteger = (dtype: tf.DataType): number => nodeBackend().getDTypeInteger(dtype);
  readonly createReductionOpAttrs = (x: tf.TensorInfo, keepDims?: boolean): NativeAttr[] =>
    nodeBackend().createReductionOpAttrs(x, keepDims);
  readonly applyActivation = (...args: unknown[]): tf.Tensor => nodeBackend().applyActivation.apply(this, args);

  symbolic(value: Value): tf.Tensor {
    const dataId = {};
    this.entries.set(dataId, { value, refCount: 1 });
    return tf.engine().makeTensorFromDataId(dataId, [...value.shape], tfjsLabel(value.dtype), this);
  }

  resolve(x: tf.TensorInfo): Value {
    const entry = this.entries.get(x.dataId);
    const declared = this.underway.outside.get(x.dataId);
    if (!entry && declared) return this.shaped(declared, x);
    if (!entry) {
      throw new TracingError(
        `A tensor from outside (${x.dtype}[${x.shape.join(',')}]) is used in traced code. Its value would be frozen into the program: pass it as an input, declare it as a variable, or create it inside the function.`,
        { shape: x.shape, dtype: x.dtype },
      );
    }
    return this.shaped(entry.value, x);
  }

  /** A reshape by reference gives the same data another shape. */
  private shaped(value: Value, x: tf.TensorInfo): Value {
    return value.shape.length === x.shape.length && value.shape.every((d, i) => d === x.shape[i])
      ? value
      : this.record('Reshape', {}, [value, constantValue(Int32Array.from(x.shape), [x.shape.length], 'int32')])[0]!;
  }

  isSymbolic(x: tf.TensorInfo): boolean {
    return this.entries.has(x.dataId);
  }

  /** Appends a node to the innermost graph. */
  record(op: string, attrs: Attrs, inputs: readonly Value[], cut?: Cut): Value[] {
    const graph = this.underway.stack.at(-1);
    if (!graph) {
      throw new TracingError(
        'A symbolic tensor is used after its trace ended. Return it as an output of the function instead.',
        { op },
      );
    }
    const inferred = infer(op, attrs, inputs);
    return graph.add(op, inputs, inferred.attrs, inferred.outputs, cut);
  }

  executeMultipleOutputs(
    op: string,
    attrs: readonly NativeAttr[],
    inputs: readonly tf.TensorInfo[],
    count: number,
  ): tf.Tensor[] {
    const own = Object.fromEntries(attrs.map((a) => [a.name, toAttr(a, this.binding)]));
    const outputs = this.record(
      op,
      own,
      inputs.map((x) => this.resolve(x)),
    );
    return outputs.slice(0, count).map((value) => this.symbolic(value));
  }

  executeSingleOutput(op: string, attrs: readonly NativeAttr[], inputs: readonly tf.TensorInfo[]): tf.Tensor {
    return this.executeMultipleOutputs(op, attrs, inputs, 1)[0]!;
  }

  executeSingleInput(op: string, x: tf.TensorInfo): tf.Tensor {
    const type = { name: 'T', type: this.binding.TF_ATTR_TYPE, value: this.getDTypeInteger(x.dtype) };
    return this.executeSingleOutput(op, [type], [x]);
  }

  override write(values: Values, shape: number[], dtype: tf.DataType): object {
    const dataId = {};
    this.move(dataId, values, shape, dtype, 1);
    return dataId;
  }

  override move(dataId: object, values: Values, shape: number[], dtype: tf.DataType, refCount: number): void {
    if (!ArrayBuffer.isView(values)) {
      throw new TracingError(`A ${dtype} tensor cannot be a constant of a program.`, { dtype, shape });
    }
    this.entries.set(dataId, { value: constantValue(values, shape, dtype as Dtype), refCount });
  }

  override readSync(dataId: object): tf.backend_util.TypedArray {
    const value = this.entries.get(dataId)?.value;
    if (value?.data) return value.data as tf.backend_util.TypedArray;
    throw new TracingError(
      `The value of ${value ? describe(value) : 'a symbolic tensor'} is read while tracing (dataSync, data, array, print, or a condition on it). It does not exist yet: use tensor ops (tf.where instead of if), or return it as an output and read it after run().`,
      value ? { shape: value.shape, dtype: value.dtype } : {},
    );
  }

  /** Whoever awaits it while tracing goes on when the trace is long over, and fails where nobody looks: the trace itself fails instead. */
  override async read(dataId: object): Promise<tf.backend_util.TypedArray> {
    try {
      return this.readSync(dataId);
    } catch (error) {
      if (this.underway.stack.length === 0) throw error;
      this.underway.awaited ??= error as TracingError;
      return new Promise(() => undefined);
    }
  }

  /** Takes the error of what was read asynchronously since. */
  takeAwaited(): TracingError | null {
    const error = this.underway.awaited;
    this.underway.awaited = null;
    return error;
  }

  override disposeData(dataId: object, force = false): boolean {
    const entry = this.entries.get(dataId);
    if (!entry) return true;
    if (--entry.refCount > 0 && !force) return false;
    this.entries.delete(dataId);
    return true;
  }

  override incRef(dataId: object): void {
    const entry = this.entries.get(dataId);
    if (entry) entry.refCount++;
  }

  override refCount(dataId: object): number {
    return this.entries.get(dataId)?.refCount ?? 0;
  }

  override numDataIds(): number {
    return this.entries.size;
  }

  override memory(): { unreliable: boolean } {
    return { unreliable: true };
  }

  override floatPrecision(): 32 {
    return 32;
  }
}

let instance: GraphBackend | null = null;
const registered = new Set<string>();

/** The kernel that reads its indices in tfjs-node, to check them: here the shapes alone. */
const gatherKernel: tf.KernelFunc = ({ inputs, attrs, backend }) => {
  const { axis, batchDims } = attrs as unknown as { axis: number; batchDims: number };
  const graph = backend as GraphBackend;
  const position = graph.symbolic(constantValue(Int32Array.of(axis), [], 'int32'));
  const count = { name: 'batch_dims', type: graph.binding.TF_ATTR_INT, value: batchDims };
  const gathered = (x: tf.TensorInfo): tf.TensorInfo =>
    graph.executeSingleOutput('GatherV2', [count], [x, inputs['indices']!, position]);
  const x = inputs['x']!;
  // XLA gathers no booleans on a GPU
  const numbers = x.dtype === 'bool' && compilesForGpu();
  const out = numbers ? castInGraph(graph, gathered(castInGraph(graph, x, 'int32')), 'bool') : gathered(x);
  position.dispose();
  return out;
};

/** A value of another of tfjs' types. */
function castInGraph(graph: GraphBackend, x: tf.TensorInfo, dtype: 'int32' | 'bool'): tf.TensorInfo {
  const { binding } = graph;
  const attributes = [
    { name: 'SrcT', type: binding.TF_ATTR_TYPE, value: graph.getDTypeInteger(x.dtype) },
    { name: 'DstT', type: binding.TF_ATTR_TYPE, value: graph.getDTypeInteger(dtype) },
    { name: 'Truncate', type: binding.TF_ATTR_BOOL, value: false },
  ];
  return graph.executeSingleOutput('Cast', attributes, [x]);
}

/** The backend; `update` looks for kernels that were registered since. */
function backend(update = false): GraphBackend {
  if (instance && !update) return instance;
  if (!instance) {
    instance = new GraphBackend();
    const made = instance;
    tf.registerBackend(GRAPH_BACKEND, () => made, 0);
  }
  for (const kernel of tf.getKernelsForBackend('tensorflow')) {
    if (registered.has(kernel.kernelName)) continue;
    registered.add(kernel.kernelName);
    if (tf.getKernel(kernel.kernelName, GRAPH_BACKEND)) continue;
    const kernelFunc = kernel.kernelName === 'GatherV2' ? gatherKernel : kernel.kernelFunc;
    tf.registerKernel({ ...kernel, kernelFunc, backendName: GRAPH_BACKEND });
  }
  return instance;
}

/** Whether traced code is running. */
export function isTracing(): boolean {
  return instance !== null && instance.underway.stack.length > 0;
}

/** Whether the code that runs now is traced for one program of XLA. */
export function compilesWithXla(): boolean {
  return isTracing() && currentGraph().xla;
}

/** Whether the code that runs now is traced for a GPU, in a program of XLA. */
export function compilesForGpu(): boolean {
  return compilesWithXla() && nodeBackend().isUsingGpuDevice;
}

/** The innermost graph being traced. @throws TracingError outside of traces */
export function currentGraph(): FunctionGraph {
  const graph = instance?.underway.stack.at(-1);
  if (!graph) throw new TracingError('This op exists in traced code only (inside Program.define or jit).');
  return graph;
}

/** Whether a tensor is symbolic. */
export function isSymbolic(x: tf.TensorInfo): boolean {
  return instance !== null && instance.isSymbolic(x);
}

/** A tfjs tensor that stands for a value of the graph being traced. */
export function symbolic(value: Value): tf.Tensor {
  return backend().symbolic(value);
}

/** The value behind a tfjs tensor in traced code. @throws TracingError when the tensor comes from outside */
export function valueOf(x: tf.TensorInfo): Value {
  return backend().resolve(x);
}

/** Appends a node to the innermost graph, on values. @param cut whether functions are outlined on either side of it */
export function record(op: string, attrs: Attrs, inputs: readonly Value[], cut?: Cut): Value[] {
  return backend().record(op, attrs, inputs, cut);
}

function noRandom(): never {
  throw new TracingError(
    'An unseeded random number is drawn while tracing: it would be frozen into the program. Use the stateless random ops with a seed that is an input (statelessUniform, statelessNormal).',
  );
}

function noAssign(): never {
  throw new TracingError(
    'A tf.Variable is assigned in traced code (the optimizers of tfjs do so): a program cannot reach into tfjs variables. Return the new value, or use Program, whose functions assign variables of the program.',
  );
}

/** Replaces what must not happen while tracing. @returns undoes it */
function guard(): () => void {
  const { random } = Math;
  const assign = Object.getOwnPropertyDescriptor(tf.Variable.prototype, 'assign')!;
  Math.random = noRandom;
  tf.Variable.prototype.assign = noAssign;
  return () => {
    Math.random = random;
    Object.defineProperty(tf.Variable.prototype, 'assign', assign);
  };
}

/** Runs what traces: ops go to the backend 'graph', and what must not happen meanwhile fails. */
const tracing: Within = (work) => {
  if (isTracing()) return work();
  backend(true);
  const previous = tf.getBackend();
  const unguard = guard();
  try {
    void tf.setBackend(GRAPH_BACKEND);
    return work();
  } finally {
    unguard();
    if (previous) void tf.setBackend(previous);
  }
};

/**
 * Runs `fn` with ops going to `graph`, in a trace (traceAtOnce, traceInPieces). Tensors made meanwhile are disposed, so `fn` returns values, not
 * tensors. Traces nest (bodies of loops).
 * @param outside eager tensors that may be used, by data id, and the values that stand for them
 */
export function* traceInto<T>(
  graph: FunctionGraph,
  fn: () => T | Pieces<T>,
  outside?: ReadonlyMap<object, Value>,
): Pieces<T> {
  const graphBackend = backend();
  const { underway } = graphBackend;
  const before = underway.outside;
  underway.stack.push(graph);
  if (outside) underway.outside = outside;
  tf.engine().startScope('trace');
  try {
    const made = fn();
    const result = isPieces(made) ? yield* made : made;
    const awaited = graphBackend.takeAwaited();
    if (awaited) throw awaited;
    return result;
  } catch (error) {
    // what was awaited never comes, so that what was done with the promise fails
    throw graphBackend.takeAwaited() ?? error;
  } finally {
    tf.engine().endScope();
    underway.stack.pop();
    underway.outside = before;
  }
}

/** Does work that traces (traceInto) at once. */
export function traceAtOnce<T>(work: Pieces<T>): T {
  return tracing(() => atOnce(work));
}

/** As traceInto() and traceAtOnce() together. */
export function trace<T>(graph: FunctionGraph, fn: () => T): T {
  return traceAtOnce(traceInto(graph, fn));
}

/** Two traces would only make each other's pieces wait. */
const turns = new Turns();

/**
 * Does work that traces piece by piece, in its turn. Between pieces everything is as if there were no trace: the backend, open scopes, the tape
 * of gradients, what is guarded.
 * @param alive asked before each piece; what it throws ends the trace
 */
export async function traceInPieces<T>(work: Pieces<T>, alive: () => void): Promise<T> {
  const graphBackend = backend();
  const scopes = ownScopes();
  let own = nothing();
  const within: Within = (piece) =>
    tracing(() => {
      const others = graphBackend.underway;
      graphBackend.underway = own;
      try {
        return scopes(piece);
      } finally {
        own = graphBackend.underway;
        graphBackend.underway = others;
      }
    });
  return turns.take(() => {
    alive();
    return inPieces(work, { within, alive });
  });
}
