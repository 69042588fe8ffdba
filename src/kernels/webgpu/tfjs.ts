/** TensorFlow.js' own WebGPU backend, as far as our kernels share its device and its buffers. */
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../../base/errors.js';
import { checkLoss, isLost, type GpuBuffer, type GpuDevice, watchForLoss } from './gpu.js';

/** What we use of TensorFlow.js' WebGPUBackend, 4.22. */
export interface WebGpuBackend {
  readonly device: GpuDevice;
  readonly tensorMap: { get(id: tf.DataId): { readonly resource?: GpuBuffer | null } };
  read(id: tf.DataId): Promise<tf.backend_util.BackendValues>;
  uploadToGPU(id: tf.DataId): void;
  makeTensorInfo(shape: number[], dtype: tf.DataType): tf.TensorInfo;
  ensureCommandEncoderReady(): void;
  endComputePassEncoder(): void;
  submitQueue(): void;
}

/** The backend in use, if it is WebGPU's. */
export function webGpuBackend(): WebGpuBackend | null {
  if (tf.getBackend() !== 'webgpu') return null;
  const backend = tf.backend() as unknown as Partial<WebGpuBackend>;
  return backend.device && backend.tensorMap ? (backend as WebGpuBackend) : null;
}

/** Lets go of TensorFlow.js' backend whose device is lost: the next one has a device of its own. */
export function replaceLost(): void {
  const backend = tf.findBackend('webgpu') as unknown as WebGpuBackend | null;
  const make = tf.findBackendFactory('webgpu');
  if (!backend?.device || !make || !isLost(backend.device)) return;
  tf.removeBackend('webgpu');
  tf.registerBackend('webgpu', make);
}

/** How long a device that fails may take to say that it is lost, in milliseconds. */
const LATE = 200;

/**
 * Takes note of the loss of TensorFlow.js' device from now on, and has values that are read off it fail with a DeviceError then: its ops
 * go on without a word.
 */
export function guardReads(backend: WebGpuBackend): void {
  const { device } = backend;
  watchForLoss(device);
  if (guarded.has(backend)) return;
  guarded.add(backend);
  const read = backend.read.bind(backend);
  backend.read = async (id) => {
    checkLoss(device);
    try {
      return await read(id);
    } catch (error) {
      await Promise.race([device.lost, new Promise((done) => setTimeout(done, LATE))]);
      checkLoss(device);
      throw error;
    }
  };
}

const guarded = new WeakSet<WebGpuBackend>();

/** Where a tensor lies, which comes to the device if it is not there. Its values may still be on their way: see submitted(). */
export function bufferOf(backend: WebGpuBackend, { dataId }: tf.TensorInfo): GpuBuffer {
  backend.uploadToGPU(dataId);
  const { resource } = backend.tensorMap.get(dataId);
  if (!resource) throw new DeviceError('internal: a tensor has no buffer on the WebGPU device', {});
  return resource;
}

/** Submits what TensorFlow.js has gathered, so that what we submit comes after it. */
export function submitted(backend: WebGpuBackend): GpuDevice {
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  backend.submitQueue();
  return backend.device;
}

/** A new tensor with a copy of what is in a buffer. */
export function tensorOf<T extends tf.Tensor>(buffer: GpuBuffer, shape: number[]): T {
  // a size of 0 has no buffer
  if (tf.util.sizeFromShape(shape) === 0) return tf.zeros(shape) as T;
  return tf.tensor({ buffer, zeroCopy: false } as unknown as tf.TensorLike, shape, 'float32') as T;
}
