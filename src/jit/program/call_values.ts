/** What goes into a program's functions and comes out of its variables: checked, and in the arrays that TensorFlow and callers take. */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import { decodeFloat32 } from '../../base/stored_dtypes.js';
import { describe, sizeOf } from '../../runtime/data_types.js';
import { nodeName } from './function.js';
import type { Signature } from './graph_cache.js';
import { nativeDtype, nativeId } from '../../runtime/binding.js';
import type { Dtype, InputValue, TensorSpec, VariableDtype } from '../types.js';

/** A function of a graph: what it takes and gives, and the names of the nodes that are fed and fetched. */
export interface Call {
  inputs: Record<string, TensorSpec>;
  outputs: string[];
  feeds: string;
  fetches: string;
}

/** The call of a function with this signature. */
export function callOf(name: string, { inputs, outputs }: Signature): Call {
  const node = `call_${nodeName(name)}`;
  const names = Object.keys(outputs);
  return {
    inputs,
    outputs: names,
    feeds: Object.keys(inputs)
      .map((input) => `${node}_${nodeName(input)}:0`)
      .join(','),
    fetches: names.length > 0 ? names.map((_, i) => `${node}:${i}`).join(',') : `${node}_done:0`,
  };
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

/** The id of a tensor that a function is given. @throws ArgumentError when it is not what the function takes */
export function tensorInput(name: string, input: string, spec: TensorSpec, value: tf.Tensor): number {
  const id = nativeId(value);
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
  return id;
}

/** Numbers that a function is given, as an array that TensorFlow takes. @throws ArgumentError when there are not as many, or of another type */
export function arrayInput(
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
