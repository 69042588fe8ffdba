/**
 * The tensorflow backend of tfjs-node as this room sees it: its kernels end in executeOp of the binding, and tensors
 * are ids that the binding owns.
 */
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../../base/errors.js';
import { dtypeName, dtypeNumber, tfjsLabel } from '../../runtime/data_types.js';
import type { Dtype } from '../types.js';

/** An op attribute as tfjs-node passes it: `type` is a TF_AttrType number. */
export interface NativeAttr {
  name: string;
  type: number;
  value: unknown;
}

/** What the binding says of a new tensor. */
export interface NativeTensor {
  id: number;
  shape: number[];
  dtype: number;
}

export interface Binding {
  TF_ATTR_STRING: number;
  TF_ATTR_INT: number;
  TF_ATTR_FLOAT: number;
  TF_ATTR_BOOL: number;
  TF_ATTR_TYPE: number;
  TF_ATTR_SHAPE: number;
  TF_Version: string;
  createTensor(shape: readonly number[], dtype: number, values: ArrayBufferView): number;
  deleteTensor(id: number): void;
  tensorDataSync(id: number): Float32Array | Int32Array | Uint8Array | BigInt64Array;
  executeOp(name: string, attrs: readonly NativeAttr[], ids: readonly number[], outputs: number): NativeTensor[];
  loadSavedModel(dir: string, tags: string): number;
  deleteSavedModel(id: number): void;
  runSavedModel(session: number, ids: readonly number[], inputs: string, outputs: string): NativeTensor[];
  getNumOfTensors(): number;
}

interface NativeInfo {
  shape: number[];
  dtype: number;
  id: number;
  values: unknown;
  refCount: number;
}

/** The members of NodeJSKernelBackend that are used here. */
export interface NodeBackend extends tf.KernelBackend {
  binding: Binding;
  isGPUPackage: boolean;
  isUsingGpuDevice: boolean;
  tensorMap: tf.DataStorage<NativeInfo>;
  getInputTensorIds(tensors: readonly tf.TensorInfo[]): number[];
  getDTypeInteger(dtype: tf.DataType): number;
  createReductionOpAttrs(tensor: tf.TensorInfo, keepDims?: boolean): NativeAttr[];
  applyActivation(...args: unknown[]): tf.Tensor;
}

/** The loaded tensorflow backend. @throws DeviceError when it was not loaded */
export function nodeBackend(): NodeBackend {
  const backend = tf.findBackend('tensorflow') as NodeBackend | null;
  if (!backend) {
    throw new DeviceError(
      "Compiled programs need the 'tensorflow' backend, and it is not loaded. Run `npx mamba2 setup` once, then call loadTensorFlow() (or selectBackend('tensorflow')) first.",
      { backend: 'tensorflow' },
    );
  }
  return backend;
}

/** Makes a tfjs tensor, owned by the tensorflow backend, of a tensor id. Types without a tfjs name get a label (see tfjsLabel). */
export function wrapNative(native: NativeTensor): tf.Tensor {
  const backend = nodeBackend();
  const dtype = tfjsLabel(dtypeName(native.dtype));
  const dataId = {};
  backend.tensorMap.set(dataId, { shape: native.shape, dtype: native.dtype, id: native.id, values: null, refCount: 1 });
  // makeTensorFromTensorInfo books the tensor on the active backend unless told which.
  return tf.engine().makeTensorFromDataId(dataId, native.shape, dtype, backend);
}

/** The id of a tensor, uploading it first if need be. A tensor of another backend moves here, as tfjs always does. */
export function nativeId(x: tf.Tensor): number {
  return nodeBackend().getInputTensorIds([x])[0]!;
}

/** The true element type of an eager tensor. */
export function nativeDtype(x: tf.Tensor): Dtype {
  return dtypeName(nodeBackend().tensorMap.get(x.dataId).dtype);
}

/** Whether the tensor lives on the tensorflow backend. */
export function isNative(x: tf.Tensor): boolean {
  return tf.findBackend('tensorflow') !== null && nodeBackend().tensorMap.has(x.dataId);
}

/** A tensor id from a typed array; the array is shared, not copied, and must not change while the tensor lives. */
export function createNative(dtype: Dtype, shape: readonly number[], values: ArrayBufferView): number {
  return nodeBackend().binding.createTensor(shape, dtypeNumber(dtype), values);
}
