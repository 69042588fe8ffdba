/** The native side of the tensorflow backend: tfjs-node's N-API binding, which speaks TensorFlow's C interface. */
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../base/errors.js';

/** Numbers of TensorFlow's data types (tensorflow/core/framework/types.proto). */
export const DT = {
  float32: 1,
  float64: 2,
  int32: 3,
  uint8: 4,
  int16: 5,
  int8: 6,
  string: 7,
  complex64: 8,
  int64: 9,
  bool: 10,
  bfloat16: 14,
  uint16: 17,
  float16: 19,
  resource: 20,
  uint32: 22,
} as const;

/** Name of a TensorFlow data type. */
export type DTName = keyof typeof DT;

/** An attribute of an op; `type` is one of the binding's TF_ATTR_* numbers. */
export interface OpAttr {
  name: string;
  type: number;
  value: unknown;
}

/** A tensor that the binding holds. */
export interface TensorMetadata {
  id: number;
  shape: number[];
  /** One of the values of DT. */
  dtype: number;
}

export interface TFJSBinding {
  createTensor(shape: number[], dtype: number, values: ArrayBufferView | Uint8Array[]): number;
  deleteTensor(id: number): void;
  tensorDataSync(id: number): Float32Array | Int32Array | Uint8Array | BigInt64Array;
  executeOp(name: string, attrs: OpAttr[], inputs: number[], outputs: number): TensorMetadata[];
  loadSavedModel(dir: string, tags: string): number;
  deleteSavedModel(id: number): void;
  runSavedModel(id: number, inputs: number[], inputNames: string, outputNames: string): TensorMetadata[];
  isUsingGpuDevice(): boolean;
  getNumOfSavedModels(): number;
  getNumOfTensors(): number;
  readonly TF_Version: string;
  readonly TF_ATTR_STRING: number;
  readonly TF_ATTR_INT: number;
  readonly TF_ATTR_FLOAT: number;
  readonly TF_ATTR_BOOL: number;
  readonly TF_ATTR_TYPE: number;
  readonly TF_ATTR_SHAPE: number;
}

/** The parts of tfjs-node's backend that we use beyond tfjs' own backend interface. */
export interface TensorFlowBackend {
  readonly binding: TFJSBinding;
  readonly isUsingGpuDevice: boolean;
  /** Ids of the tensors on the native side; values not yet there are brought there. */
  getInputTensorIds(tensors: tf.TensorInfo[]): number[];
  /** A tfjs tensor that owns the native one. */
  createOutputTensor(metadata: TensorMetadata): tf.Tensor;
}

/**
 * The tensorflow backend, whether or not it is the one selected.
 *
 * @throws DeviceError when TensorFlow has not been loaded
 */
export function tensorFlowBackend(): TensorFlowBackend {
  const backend = tf.findBackend('tensorflow') as unknown as TensorFlowBackend | null;
  if (backend?.binding) return backend;
  throw new DeviceError('TensorFlow is not loaded in this process. Call loadTensorFlow() or selectBackend() first.');
}

/** The native binding; see tensorFlowBackend(). */
export function nativeBinding(): TFJSBinding {
  return tensorFlowBackend().binding;
}
