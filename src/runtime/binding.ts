/**
 * The tensorflow backend of tfjs-node as this package uses it, beyond tfjs' own backend interface: its kernels end in executeOp of the
 * native binding, which speaks TensorFlow's C interface, and its tensors are ids that the binding owns.
 */
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../base/errors.js';
import { dtypeBytes, dtypeName, dtypeNumber, tfjsLabel, type Dtype } from './data_types.js';

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
  getNumOfTensors(): number;
}

interface NativeInfo {
  shape: number[];
  dtype: number;
  /** -1 while there are values only. */
  id: number;
  /** Of a tensor that has not been brought to the native side. */
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

/** Of tensors that are read late: the values that were read last, for the two reads that tfjs-node makes in a row. */
let lastRead: { of: object; values: Float32Array } | null = null;

/**
 * A float32 tensor of the tensorflow backend whose values are nowhere in memory until somebody wants them: an op of TensorFlow, which keeps
 * them, or a reader, for whom they are read each time.
 * @param read the values; may throw
 */
export function lateTensor(shape: readonly number[], read: () => Float32Array): tf.Tensor {
  const backend = nodeBackend();
  const dataId = {};
  let late = true;
  const values = (): Float32Array => {
    if (lastRead?.of !== dataId) {
      lastRead = null; // one at a time in memory
      lastRead = { of: dataId, values: read() };
      setImmediate(() => (lastRead = null));
    }
    return lastRead.values;
  };
  backend.tensorMap.set(dataId, {
    shape: [...shape],
    dtype: dtypeNumber('float32'),
    id: -1,
    refCount: 1,
    get values() {
      return late ? values() : null;
    },
    set values(_none: unknown) {
      late = false;
    },
  });
  return tf.engine().makeTensorFromDataId(dataId, [...shape], 'float32', backend);
}

/** Whether the values of a tensor of the tensorflow backend are held by TensorFlow. */
export function isHeld(dataId: object): boolean {
  const backend = findNodeBackend();
  return backend?.tensorMap.has(dataId) !== true || backend.tensorMap.get(dataId).id >= 0;
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

/** Types whose values tfjs-node takes from a typed array when they are first needed there. */
const WITH_VALUES: Partial<Record<Dtype, new (buffer: ArrayBuffer) => ArrayBufferView>> = {
  float32: Float32Array,
  int32: Int32Array,
  bool: Uint8Array,
  uint8: Uint8Array,
};

/** Types that tensorDataSync gives; it knows no others. */
const READABLE: readonly Dtype[] = ['float32', 'int32', 'int64', 'bool', 'complex64'];

/** Runs an op of one input and one output, which has its element types under these names. */
function convert(op: 'Bitcast' | 'Cast', id: number, types: Readonly<Record<string, Dtype>>): NativeTensor {
  const { binding } = nodeBackend();
  const attrs: NativeAttr[] = Object.entries(types).map(([name, dtype]) => ({
    name,
    type: binding.TF_ATTR_TYPE,
    value: dtypeNumber(dtype),
  }));
  if (op === 'Cast') attrs.push({ name: 'Truncate', type: binding.TF_ATTR_BOOL, value: false });
  return binding.executeOp(op, attrs, [id], 1)[0]!;
}

/** Makes a tfjs tensor, owned by the tensorflow backend, of the bytes of a result, which it takes over. */
export function wrapBytes(dtype: Dtype, shape: readonly number[], bytes: ArrayBuffer): tf.Tensor {
  const backend = nodeBackend();
  const Values = WITH_VALUES[dtype];
  if (Values) {
    const dataId = {};
    const [dims, number] = [[...shape], dtypeNumber(dtype)];
    backend.tensorMap.set(dataId, { shape: dims, dtype: number, id: -1, values: new Values(bytes), refCount: 1 });
    return tf.engine().makeTensorFromDataId(dataId, dims, tfjsLabel(dtype), backend);
  }
  const width = dtypeBytes(dtype);
  const plain = createNative('uint8', width > 1 ? [...shape, width] : shape, new Uint8Array(bytes));
  try {
    return wrapNative(convert('Bitcast', plain, { T: 'uint8', type: dtype }));
  } finally {
    backend.binding.deleteTensor(plain);
  }
}

/** Values of a tensor of a type that tensorDataSync does not give: as int32 of the same bits, or of as many values, which are narrowed. */
function readThrough(id: number, dtype: Dtype): ArrayBufferView {
  const { binding } = nodeBackend();
  const width = dtypeBytes(dtype);
  const plain = width === 4 ? 'int32' : width === 2 ? 'int16' : 'uint8';
  const made = [convert('Bitcast', id, { T: dtype, type: plain }).id];
  try {
    if (width < 4) made.push(convert('Cast', made[0]!, { SrcT: plain, DstT: 'int32' }).id);
    const values = binding.tensorDataSync(made.at(-1)!) as Int32Array;
    return width === 4 ? values : width === 2 ? Int16Array.from(values) : Uint8Array.from(values);
  } finally {
    for (const one of made) binding.deleteTensor(one);
  }
}

/** The values of a tensor, in a typed array of its type or of its bits: those that tfjs holds where there are such, else a copy. */
export function valuesOf(x: tf.Tensor): ArrayBufferView {
  const backend = nodeBackend();
  const { values, id, dtype } = backend.tensorMap.get(x.dataId);
  if (ArrayBuffer.isView(values)) return values;
  const type = dtypeName(dtype);
  return READABLE.includes(type) ? backend.binding.tensorDataSync(id) : readThrough(id, type);
}
