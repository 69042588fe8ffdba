/**
 * Values that XLA computes once on a CPU. By itself it puts elementwise work into every kernel that reads the result: what three
 * kernels read (an activation, a sum that is carried on) is computed three times. It does so only with cheap work, and a division is
 * not cheap to it; one by a number that it cannot know to be 1 changes no value. (Optimization barriers do not help: they are gone
 * before kernels are made.) On a GPU the same fusion saves memory traffic.
 */
import * as tf from '@tensorflow/tfjs';
import { compilesWithXla } from '../trace/backend.js';
import { nodeBackend } from '../../runtime/binding.js';

/** 1, whatever the witness holds: XLA does not cancel a/a in floating point. */
function one(witness: tf.Tensor): tf.Tensor {
  const first = tf.slice(tf.reshape(witness, [-1]), [0], [1]);
  const some = tf.where(tf.greater(first, 0), tf.tensor1d([1]), tf.tensor1d([2]));
  return tf.reshape(tf.div(some, some), []);
}

/**
 * The same tensor. Code compiled for a CPU has it in memory before it is used, if several kernels use it.
 * @param witness any float32 tensor at hand that is not a constant, the smaller the better
 * @param gradient whether the gradient, which passes unchanged, is kept so, too
 */
export function materialise<T extends tf.Tensor>(x: T, witness: tf.Tensor, gradient = false): T {
  if (!compilesWithXla() || nodeBackend().isUsingGpuDevice) return x;
  return tf.customGrad((input: unknown) => ({
    value: tf.div(input as tf.Tensor, one(witness)),
    gradFunc: (dy: tf.Tensor) => (gradient ? tf.div(dy, one(witness)) : dy),
  }))(x) as T;
}
