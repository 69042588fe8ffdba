/**
 * The tensorflow backend of tfjs-node as this package uses it, beyond tfjs' own backend interface: its kernels end in executeOp of the
 * native binding, which speaks TensorFlow's C interface, and its tensors are ids that the binding owns.
 */
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../base/errors.js';
import { dtypeName, dtypeNumber, tfjsLabel, type Dtype } from './data_types.js';

/** An attribute of an op as tfjs-node passes it: `type` is one of the binding's TF_ATTR_* numbers. */
export interface NativeAttr {
  name: string;
  type: number;
  value: unknown;
}

/** What the binding says of a new tensor. */
export interface NativeTensor {
  id: number;
  shape: number[];
  /** TensorFlow's number of the element type (see data_types.ts). */
  dtype: number;
}

/** The members of tfjs-node's binding that are used here. */
export interface Binding {
  readonly TF_ATTR_STRING: number;
  readonly TF_ATTR_INT: number;
  readonly TF_ATTR_FLOAT: number;
  readonly TF_ATTR_BOOL: number;
  readonly TF_ATTR_TYPE: number;
  readonly TF_ATTR_SHAPE: number;
  readonly TF_Version: string;
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
  /** Ids of the tensors on the native side; values not yet there are brought there. */
  getInputTensorIds(tensors: readonly tf.TensorInfo[]): number[];
  getDTypeInteger(dtype: tf.DataType): number;
  createReductionOpAttrs(tensor: tf.TensorInfo, keepDims?: boolean): NativeAttr[];
  applyActivation(...args: unknown[]): tf.Tensor;
}

/** The tensorflow backend, whether or not it is the one selected; null when it was not loaded. */
export function findNodeBackend(): NodeBackend | null {
  return tf.findBackend('tensorflow') as NodeBackend | null;
}

/** The tensorflow backend, whether or not it is the one selected. @throws DeviceError when it was not loaded */
export function nodeBackend(): NodeBackend {
  const backend = findNodeBackend();
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

/** The element type that a tensor has on the native side. */
export function nativeDtype(x: tf.Tensor): Dtype {
  return dtypeName(nodeBackend().tensorMap.get(x.dataId).dtype);
}

/** A tensor id from a typed array; the array is shared, not copied, and must not change while the tensor lives. */
export function createNative(dtype: Dtype, shape: readonly number[], values: ArrayBufferView): number {
  return nodeBackend().binding.createTensor(shape, dtypeNumber(dtype), values);
}
