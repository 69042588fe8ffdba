/** The loss of language models over rows of logits. */
import * as tf from '@tensorflow/tfjs';

/** Labels with this value are left out. */
export const IGNORE_INDEX = -100;

/**
 * Sum over rows of weight·(-log softmax(logits)[label]). One fused function with a hand-written gradient: the tape would
 * keep several copies of the logits, the largest tensor of a training step.
 *
 * @param logits [m, v] @param labels int32 [m], any valid id where the weight is 0 @param weights [m]
 * @returns scalar
 */
export function weightedCrossEntropy(logits: tf.Tensor2D, labels: tf.Tensor1D, weights: tf.Tensor1D): tf.Scalar {
  const [m, v] = logits.shape;
  const op = tf.customGrad((x, save) => {
    const scores = x as tf.Tensor2D;
    const top = tf.max(scores, 1, true); // [m, 1]
    const shifted = tf.sub(scores, top);
    const logSum = tf.log(tf.sum(tf.exp(shifted), 1, true)); // [m, 1]
    const oneHot = tf.oneHot(labels, v) as tf.Tensor2D;
    const picked = tf.sum(tf.mul(shifted, tf.cast(oneHot, 'float32')), 1, true); // [m, 1]
    const column = tf.reshape(weights, [m, 1]);
    const value = tf.sum(tf.mul(tf.sub(logSum, picked), column)) as tf.Scalar;
    (save as (tensors: tf.Tensor[]) => void)([scores, tf.add(top, logSum), labels, column]);
    return {
      value,
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const probabilities = tf.exp(tf.sub(saved[0]!, saved[1]!)); // [m, v]
        const difference = tf.sub(probabilities, tf.cast(tf.oneHot(saved[2] as tf.Tensor1D, v), 'float32'));
        return tf.mul(difference, tf.mul(saved[3]!, dy));
      },
    };
  });
  return op(logits) as tf.Scalar;
}
