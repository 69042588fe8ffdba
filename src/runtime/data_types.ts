/** Element types: their TensorFlow numbers, sizes, and the label that a tfjs tensor of that type carries. */
import type * as tf from '@tensorflow/tfjs';
import { TracingError } from '../base/errors.js';

/**
 * Element types that a program can hold. tfjs itself knows float32, int32 and bool; tensors of the other types exist
 * on the device and in graphs all the same, labelled float32 (bfloat16) or int32 (uint8, int8, int16, int64).
 */
export type Dtype =
  | 'float32'
  | 'int32'
  | 'bool'
  | 'bfloat16'
  | 'uint8'
  | 'int8'
  | 'int16'
  | 'uint16'
  | 'int64'
  | 'float16'
  | 'complex64'
  | 'uint32';

/** DataType numbers of TensorFlow's types.proto. */
const NUMBERS: Readonly<Record<Dtype, number>> = {
  float32: 1,
  int32: 3,
  uint8: 4,
  int16: 5,
  int8: 6,
  complex64: 8,
  int64: 9,
  bool: 10,
  bfloat16: 14,
  uint16: 17,
  float16: 19,
  uint32: 22,
};

/** DT_RESOURCE: handles of variables. */
export const DT_RESOURCE = 20;

const NAMES = new Map<number, Dtype>(Object.entries(NUMBERS).map(([name, n]) => [n, name as Dtype]));

/** TensorFlow's number of an element type. */
export function dtypeNumber(dtype: Dtype): number {
  return NUMBERS[dtype];
}

/** The element type of a TensorFlow number. @throws TracingError for types that programs cannot hold (string, float64 …) */
export function dtypeName(number: number): Dtype {
  const name = NAMES.get(number);
  if (!name)
    throw new TracingError(`TensorFlow dtype number ${number} is not supported in programs.`, { dtype: number });
  return name;
}

const SIZES: Readonly<Record<Dtype, number>> = {
  float32: 4,
  int32: 4,
  uint8: 1,
  int16: 2,
  int8: 1,
  complex64: 8,
  int64: 8,
  bool: 1,
  bfloat16: 2,
  uint16: 2,
  float16: 2,
  uint32: 4,
};

/** Bytes of one element. */
export function dtypeBytes(dtype: Dtype): number {
  return SIZES[dtype];
}

/** What `tensor.dtype` says for a tensor of this type: tfjs has names for a few types only. */
export function tfjsLabel(dtype: Dtype): tf.DataType {
  switch (dtype) {
    case 'float32':
    case 'bfloat16':
    case 'float16':
      return 'float32';
    case 'bool':
      return 'bool';
    case 'complex64':
      return 'complex64';
    default:
      return 'int32';
  }
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1);
}

/** `float32[2,3]`, for messages. */
export function describe(spec: { dtype: Dtype; shape: readonly number[] }): string {
  return `${spec.dtype}[${spec.shape.join(',')}]`;
}
