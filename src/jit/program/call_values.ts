/** What goes into a program's functions and comes out of its variables: checked, and in the arrays that TensorFlow and callers take. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DeviceError } from '../../base/errors.js';
import { decodeFloat32 } from '../../base/stored_dtypes.js';
import { describe, dtypeNumber, sizeOf } from '../../runtime/data_types.js';
import { nodeName } from './function.js';
import type { Signature } from './graph_cache.js';
import { nativeDtype, valuesOf } from '../../runtime/binding.js';
import type { FeedPlace } from '../../runtime/native_session.js';
import type { Dtype, InputValue, TensorSpec, VariableDtype } from '../types.js';

/** Values of an output; BigInt64Array for int64. */
export type OutputData = Float32Array | Int32Array | Uint8Array;

/** A function of a graph: what it takes and gives, and the names of the nodes that are fed and fetched. */
export interface Call {
  inputs: Record<string, TensorSpec>;
  outputs: Record<string, TensorSpec>;
  feeds: readonly FeedPlace[];
  /** The node of each output, in their order; of a function without outputs the one that is fetched all the same. */
  fetches: readonly string[];
  /** Variables that it assigns. */
  assigned: readonly string[];
}

/** The call of a function with this signature. */
export function callOf(name: string, { inputs, outputs, assigned }: Signature): Call {
  const node = `call_${nodeName(name)}`;
  const names = Object.keys(outputs);
  return {
    inputs,
    outputs,
    feeds: Object.entries(inputs).map(([input, { dtype, shape }]) => [
      `${node}_${nodeName(input)}:0`,
      dtypeNumber(dtype),
      shape,
    ]),
    assigned,
    fetches: names.length > 0 ? names.map((_, i) => `${node}:${i}`) : [`${node}_done:0`],
  };
}

/** What to fetch for these outputs of a function. @throws ArgumentError when it has no such output, or has some and none is wanted */
export function fetchesOf(name: string, call: Call, wanted: readonly string[]): readonly string[] {
  const outputs = Object.keys(call.outputs);
  if (outputs.length === 0 && wanted.length === 0) return call.fetches;
  const places = wanted.map((output) => outputs.indexOf(output));
  if (wanted.length > 0 && !places.includes(-1)) return places.map((place) => call.fetches[place]!);
  throw new ArgumentError(
    `call('${name}'): expected outputs among ${outputs.join(', ') || '(none)'}, got ${wanted.join(', ') || 'none'}.`,
    { name, got: [...wanted], expected: outputs },
  );
}

/** A result as the typed array that callers get. @throws DeviceError for types that have none */
export function outputValues(dtype: Dtype, bytes: ArrayBuffer): OutputData {
  switch (dtype) {
    case 'float32':
    case 'complex64':
      return new Float32Array(bytes);
    case 'int32':
      return new Int32Array(bytes);
    case 'bool':
    case 'uint8':
      return new Uint8Array(bytes);
    case 'int64':
      return new BigInt64Array(bytes) as unknown as OutputData;
    default:
      throw new DeviceError(`call(): an output of type ${dtype} has no typed array; use run().`, { dtype });
  }
}

/** Bytes of a variable as what they are: bfloat16 as float32. */
export function typedValues(
  dtype: VariableDtype,
  bytes: Uint8Array,
): Float32Array | Int32Array | Uint8Array | BigInt64Array {
  const { buffer, byteOffset, byteLength } = bytes;
  switch (dtype) {
    case 'float32':
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case 'int32':
      return new Int32Array(buffer, byteOffset, byteLength / 4);
    case 'int64':
      return new BigInt64Array(buffer, byteOffset, byteLength / 8);
    case 'uint8':
      return bytes;
    case 'bfloat16':
      return decodeFloat32(bytes, 'BF16');
  }
}

/** Values of all inputs of a function, in their order. @throws ArgumentError for one that is missing or is not what the function takes */
export function inputValues(
  name: string,
  specs: Readonly<Record<string, TensorSpec>>,
  inputs: Readonly<Record<string, InputValue>>,
): ArrayBufferView[] {
  return Object.entries(specs).map(([input, spec]) => {
    const value = inputs[input];
    if (value === undefined)
      throw new ArgumentError(`run('${name}'): the input '${input}' is missing.`, { name, input });
    return value instanceof tf.Tensor ? tensorInput(name, input, spec, value) : arrayInput(name, input, spec, value);
  });
}

/** The values of a tensor that a function is given. @throws ArgumentError when it is not what the function takes */
function tensorInput(name: string, input: string, spec: TensorSpec, value: tf.Tensor): ArrayBufferView {
  const dtype = nativeDtype(value);
  if (dtype !== spec.dtype || value.shape.join() !== spec.shape.join()) {
    throw new ArgumentError(
      `run('${name}'): input '${input}' is ${describe({ dtype, shape: value.shape })}, expected ${describe(spec)}.`,
      {
        name,
        input,
      },
    );
  }
  return valuesOf(value);
}

/** Numbers that a function is given, as an array that TensorFlow takes. @throws ArgumentError when there are not as many, or of another type */
function arrayInput(
  name: string,
  input: string,
  spec: TensorSpec,
  value: Exclude<InputValue, tf.Tensor>,
): ArrayBufferView {
  const fail = (got: string): never => {
    throw new ArgumentError(`run('${name}'): input '${input}' is ${got}, expected ${describe(spec)}.`, {
      name,
      input,
    });
  };
  const list = typeof value === 'number' ? [value] : value;
  if (list.length !== sizeOf(spec.shape)) fail(`${list.length} values`);
  const types: Partial<
    Record<Dtype, { from(v: ArrayLike<number>): ArrayBufferView & ArrayLike<number>; name: string }>
  > = {
    float32: Float32Array,
    int32: Int32Array,
    uint8: Uint8Array,
    bool: Uint8Array,
  };
  const type = types[spec.dtype];
  if (!type) return fail(`an array, which cannot carry ${spec.dtype} (pass a tensor)`);
  if (ArrayBuffer.isView(list)) {
    if (list.constructor.name !== type.name) fail(`a ${list.constructor.name}`);
    return list;
  }
  return type.from(list);
}
