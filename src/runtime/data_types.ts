/** The table of element types: their TensorFlow numbers, sizes, and the label that a tfjs tensor of that type carries. */
import type * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../base/errors.js';
import { DTYPE_BYTES } from '../base/stored_dtypes.js';

interface DataType {
  /** In TensorFlow's types.proto. */
  readonly number: number;
  /** Of one element. */
  readonly bytes: number;
  /** What `tensor.dtype` says: tfjs has names for a few types only. */
  readonly label: tf.DataType;
}

const TYPES = {
  float32: { number: 1, bytes: DTYPE_BYTES.F32, label: 'float32' },
  int32: { number: 3, bytes: DTYPE_BYTES.I32, label: 'int32' },
  bool: { number: 10, bytes: DTYPE_BYTES.BOOL, label: 'bool' },
  bfloat16: { number: 14, bytes: DTYPE_BYTES.BF16, label: 'float32' },
  uint8: { number: 4, bytes: DTYPE_BYTES.U8, label: 'int32' },
  int8: { number: 6, bytes: DTYPE_BYTES.I8, label: 'int32' },
  int16: { number: 5, bytes: DTYPE_BYTES.I16, label: 'int32' },
  uint16: { number: 17, bytes: 2, label: 'int32' },
  int64: { number: 9, bytes: DTYPE_BYTES.I64, label: 'int32' },
  float16: { number: 19, bytes: DTYPE_BYTES.F16, label: 'float32' },
  complex64: { number: 8, bytes: 8, label: 'complex64' },
  uint32: { number: 22, bytes: 4, label: 'int32' },
} as const satisfies Record<string, DataType>;

/**
 * Element types that a program can hold. tfjs itself knows float32, int32, bool and complex64; tensors of the other types exist on the
 * device and in graphs all the same, labelled float32 (bfloat16, float16) or int32 (other integers).
 */
export type Dtype = keyof typeof TYPES;

/** TensorFlow's number for handles of variables, DT_RESOURCE. */
export const DT_RESOURCE = 20;
export const DT_STRING = 7;

const NAMES = new Map(Object.entries(TYPES).map(([name, { number }]) => [number as number, name as Dtype]));

/** TensorFlow's number of an element type. */
export function dtypeNumber(dtype: Dtype): number {
  return TYPES[dtype].number;
}

/** Whether this is the name of an element type. */
export function isDtype(name: string): name is Dtype {
  return Object.hasOwn(TYPES, name);
}

/** The element type of a TensorFlow number; null for types that are not in the table (string, float64 …). */
export function findDtype(number: number): Dtype | null {
  return NAMES.get(number) ?? null;
}

/** As findDtype. @throws DeviceError for types that are not in the table */
export function dtypeName(number: number): Dtype {
  const name = findDtype(number);
  if (!name)
    throw new DeviceError(`TensorFlow dtype number ${number} is not supported in programs.`, { dtype: number });
  return name;
}

/** Bytes of one element. */
export function dtypeBytes(dtype: Dtype): number {
  return TYPES[dtype].bytes;
}

/** What `tensor.dtype` says for a tensor of this type. */
export function tfjsLabel(dtype: Dtype): tf.DataType {
  return TYPES[dtype].label;
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1);
}

/** `float32[2,3]`, for messages. */
export function describe(spec: { dtype: Dtype; shape: readonly number[] }): string {
  return `${spec.dtype}[${spec.shape.join(',')}]`;
}
