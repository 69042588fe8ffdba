/** Barriers, beyond which XLA joins and simplifies nothing; and a sum that grows term by term, kept in memory on GPUs by one. */
import * as tf from '@tensorflow/tfjs';
import { rawOp } from '../ops/raw_op.js';
import { compilesForGpu } from '../trace/backend.js';

/** The same tensors, all of which are there before any is used, in traced code that XLA compiles. No gradients. */
export function barrier(tensors: readonly tf.Tensor[]): tf.Tensor[] {
  return rawOp('XlaOptimizationBarrier', tensors, {}, tensors.length);
}

/**
 * The same tensor, in memory before it is used, in code compiled for a GPU. Of a sum that grows
 * term by term (a residual stream) XLA would keep all terms instead, and add all earlier ones up again wherever it is read: time and
 * compile time would grow with the square of the terms. Gradients pass.
 */
export function materialiseOnGpu<T extends tf.Tensor>(x: T): T {
  if (!compilesForGpu()) return x;
  return tf.customGrad((input: unknown) => ({
    value: barrier([input as tf.Tensor])[0]!,
    gradFunc: (dy: tf.Tensor) => dy,
  }))(x) as T;
}
