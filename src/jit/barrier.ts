/** A sum that grows from layer to layer, kept in memory on GPUs. */
import * as tf from '@tensorflow/tfjs';
import { rawOp } from './ops.js';
import { compilesForGpu } from './triton.js';

/**
 * The same tensor, in memory before it is used, in code compiled for a GPU. Of the stream between layers XLA would keep all terms instead, and
 * in every layer add all earlier ones up again: time and compile time would grow with the square of the layers. Gradients pass.
 */
export function settledOnGpu<T extends tf.Tensor>(x: T): T {
  if (!compilesForGpu()) return x;
  return tf.customGrad((input: unknown) => ({
    value: rawOp('XlaOptimizationBarrier', [input as tf.Tensor])[0]!,
    gradFunc: (dy: tf.Tensor) => dy,
  }))(x) as T;
}
