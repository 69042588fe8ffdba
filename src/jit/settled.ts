/**
 * Values that XLA computes once on a CPU. Without this it puts elementwise work into each kernel that reads its result, so that what three
 * kernels read (a convolution with its activation, a new moment) is computed three times, and old values that a later kernel would read
 * again are copied before they are overwritten. On a GPU the same fusion saves memory traffic, and kernels may have several results.
 */
import * as tf from '@tensorflow/tfjs';
import { currentGraph, isTracing } from './backend.js';
import { nodeBackend } from './native.js';
import { rawOp } from './ops.js';

const OP = 'XlaOptimizationBarrier';

function settles(): boolean {
  return isTracing() && currentGraph().xla && !nodeBackend().isUsingGpuDevice;
}

/** The same tensor, in memory before it is used. Gradients pass. */
export function settled<T extends tf.Tensor>(x: T): T {
  if (!settles()) return x;
  return tf.customGrad((input: unknown) => ({
    value: rawOp(OP, [input as tf.Tensor])[0]!,
    gradFunc: (dy: tf.Tensor) => dy,
  }))(x) as T;
}

/** The same tensors, all of them in memory before any is used. No gradient. */
export function settledTogether<T extends tf.Tensor[]>(xs: T): T {
  return settles() ? (rawOp(OP, xs, {}, xs.length) as T) : xs;
}
