/**
 * Quantised matrices in compiled programs: packed uint8 variables, in the layout that is fast on the device, multiplied
 * without a dequantised copy of the whole matrix when few rows come in (decoding), and through one when many do (prefill).
 */
import * as tf from '@tensorflow/tfjs';
import type { Instructions } from '../kernels/index.js';
import type { WeightStorage } from '../layers/storage.js';
import { columnStorage } from './column_form.js';
import type { QuantizedMatrix } from './quantize.js';
import { rowStorage } from './row_form.js';
import { tileInstructions, tileStorage } from './tile_form.js';

export interface StorageOptions {
  /** Default: what TensorFlow runs on. */
  device?: 'cpu' | 'gpu';
  /** Round activations in decoding: to int8 on a CPU, to 16 bits on a GPU (see Int4WeightOnlyConfig). */
  activation_quantization: boolean;
  /** The instructions that kernels of our own use on a CPU; `none` leaves the work to XLA. Default: the fastest that run here. */
  instructions?: Instructions | 'none';
}

/** @param m the matrix as stored on disk; packed anew for the device when the program takes it up */
export function quantizedStorage(m: QuantizedMatrix, options: StorageOptions): WeightStorage {
  const device = options.device ?? (onGpu() ? 'gpu' : 'cpu');
  const instructions = options.instructions ?? tileInstructions(m)[0] ?? 'none';
  if (device === 'cpu' && options.activation_quantization && instructions !== 'none')
    return tileStorage(m, instructions);
  if (device === 'cpu' && m.bits === 4 && m.groupSize % 32 === 0)
    return columnStorage(m, options.activation_quantization);
  return rowStorage(m, options.activation_quantization);
}

function onGpu(): boolean {
  const backend = tf.findBackend('tensorflow') as unknown as { binding?: { isUsingGpuDevice(): boolean } } | null;
  return backend?.binding?.isUsingGpuDevice() ?? false;
}
