/** Types and shapes of the outputs of an op, from its signature and its shape function. */
import { TracingError } from '../errors.js';
import { describe, dtypeNumber, isDtype } from '../../runtime/data_types.js';
import { attr, typeOf, type Attr, type Attrs } from './graphdef.js';
import type { Value } from './graph.js';
import { OP_SIGNATURES } from './op_signatures.js';
import { shapeFunction } from './shapes.js';
import type { Dtype } from '../types.js';

interface ArgumentType {
  name: string;
  /** Element type, or the name of a type attribute. */
  type: string;
  /** Attribute that holds the length of a list of this type. */
  count?: string;
  /** The list of types is the attribute `type`. */
  list: boolean;
  default?: string;
}

interface Signature {
  inputs: ArgumentType[];
  outputs: ArgumentType[];
}

const signatures = new Map<string, Signature>();

function parse(text: string): ArgumentType[] {
  return text
    .trim()
    .split(/\s+/)
    .filter((word) => word !== '')
    .map((word) => {
      const match = /^(\w+):(?:(\w+)\*)?(\w+)(\[\])?(?:=(\w+))?$/.exec(word)!;
      const [, name, count, type, list, fallback] = match;
      return { name: name!, type: type!, count, list: list !== undefined, default: fallback };
    });
}

function signatureOf(op: string): Signature {
  let signature = signatures.get(op);
  if (!signature) {
    const text = OP_SIGNATURES[op];
    if (text === undefined) throw unsupported(op);
    const [inputs, outputs] = text.split('->') as [string, string];
    signature = { inputs: parse(inputs), outputs: parse(outputs) };
    signatures.set(op, signature);
  }
  return signature;
}

const HINTS: Readonly<Record<string, string>> = {
  Multinomial:
    'its result changes from call to call; add Gumbel noise of statelessUniform to the logits and take argMax',
  Where: 'the shape of its result depends on data; mask with tf.where(condition, a, b) instead',
  UniqueV2: 'the shape of its result depends on data',
  NonMaxSuppressionV3: 'the shape of its result depends on data',
  NonMaxSuppressionV4: 'the shape of its result depends on data',
  NonMaxSuppressionV5: 'the shape of its result depends on data',
};

function unsupported(op: string): TracingError {
  const why = HINTS[op] ?? 'it has no shape function here; write it with other ops, or compute it outside the program';
  return new TracingError(`The TensorFlow op '${op}' cannot be traced: ${why}.`, { op });
}

function mismatch(op: string, argument: string, value: Value, expected: string): TracingError {
  const hint =
    value.dtype === 'bfloat16' || value.dtype === 'uint8' || value.dtype === 'int64'
      ? ` tfjs ops know no ${value.dtype}: convert with castFloat32() or castTo() first, or use matMulBf16() or gatherRows().`
      : '';
  return new TracingError(`${op}: argument '${argument}' is ${describe(value)}, expected ${expected}.${hint}`, {
    op,
    argument,
    got: value.dtype,
    expected,
  });
}

/** What one node needs: all attributes, and reference, type and shape of each output. */
export interface Inference {
  attrs: Attrs;
  outputs: { ref: string; dtype: Dtype; shape: number[] }[];
}

/** Checks the inputs against the signature, completes attributes that inputs determine. */
function inputTypes(op: string, signature: Signature, inputs: readonly Value[], attrs: Attrs): void {
  const lists = signature.inputs.filter((a) => a.count || a.list).length;
  const spare = inputs.length - (signature.inputs.length - lists);
  if (lists > 1 || (lists === 0 && spare !== 0) || spare < 0) {
    throw new TracingError(`${op}: got ${inputs.length} inputs, expected ${signature.inputs.length}.`, { op });
  }
  let at = 0;
  for (const argument of signature.inputs) {
    if (argument.list) {
      const types = inputs.slice(at, at + spare).map((v) => dtypeNumber(v.dtype));
      attrs[argument.type] = attr.types(types);
      at += spare;
      continue;
    }
    const count = argument.count ? spare : 1;
    if (argument.count) attrs[argument.count] = attr.int(spare);
    for (let k = 0; k < count; k++) {
      const value = inputs[at++]!;
      if (isDtype(argument.type)) {
        if (value.dtype !== argument.type) throw mismatch(op, argument.name, value, argument.type);
        continue;
      }
      const given: Attr | undefined = attrs[argument.type];
      if (!given) attrs[argument.type] = attr.type(dtypeNumber(value.dtype));
      else if (given.kind === 'type' && given.value !== dtypeNumber(value.dtype)) {
        throw mismatch(op, argument.name, value, typeOf(given.value));
      }
    }
  }
}

function outputDtypes(op: string, argument: ArgumentType, attrs: Attrs): Dtype[] {
  if (isDtype(argument.type)) return [argument.type];
  const given = attrs[argument.type];
  if (argument.list) return given?.kind === 'types' ? given.value.map(typeOf) : [];
  let dtype: Dtype;
  if (given?.kind === 'type') dtype = typeOf(given.value);
  else if (argument.default) dtype = argument.default as Dtype;
  else throw new TracingError(`${op}: attribute '${argument.type}' is missing.`, { op, attribute: argument.type });
  const count = argument.count ? attrs[argument.count] : undefined;
  return new Array<Dtype>(count?.kind === 'int' ? (count.value as number) : 1).fill(dtype);
}

/** Infers one node. @throws TracingError for unknown ops, wrong types and shapes that do not fit */
export function infer(op: string, given: Attrs, inputs: readonly Value[]): Inference {
  const shapes = shapeFunction(op);
  if (!shapes) throw unsupported(op);
  const signature = signatureOf(op);
  const attrs = { ...given };
  inputTypes(op, signature, inputs, attrs);
  const dims = shapes(inputs, attrs, op);
  const outputs: Inference['outputs'] = [];
  for (const argument of signature.outputs) {
    outputDtypes(op, argument, attrs).forEach((dtype, k) => {
      outputs.push({ ref: `${argument.name}:${k}`, dtype, shape: dims[outputs.length]! });
    });
  }
  return { attrs, outputs };
}
