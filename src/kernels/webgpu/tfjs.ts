/** TensorFlow.js' own WebGPU backend, as far as our kernels share its device and its buffers. */
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../../base/errors.js';
import type { GpuBuffer, GpuDevice } from './gpu.js';

/** What we use of TensorFlow.js' WebGPUBackend, 4.22. */
export interface WebGpuBackend {
  readonly device: GpuDevice;
  readonly tensorMap: { get(id: tf.DataId): { readonly resource?: GpuBuffer | null } };
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
