/** Causal language-model loss (spec B.11; Hugging Face loss_utils.py, ForCausalLMLoss). */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';

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

/** Labels shifted by one against the logits: position t predicts label t+1. */
export interface ShiftedLabels {
  /** [b·t], 0 where left out */
  labels: Int32Array;
  /** [b·t], 1 where counted */
  weights: Float32Array;
  /** How many count. */
  kept: number;
}

/** @param labels [b·t] row by row, IGNORE_INDEX where left out @throws ArgumentError when a label is outside the vocabulary */
export function shiftLabels(labels: Int32Array, batch: number, length: number, vocabSize: number): ShiftedLabels {
  const out = { labels: new Int32Array(batch * length), weights: new Float32Array(batch * length), kept: 0 };
  for (let i = 0; i < batch; i++) {
    for (let j = 0; j + 1 < length; j++) {
      const label = labels[i * length + j + 1]!;
      if (label === IGNORE_INDEX) continue;
      if (label < 0 || label >= vocabSize) {
        throw new ArgumentError(
          `labels: ${label} at [${i}, ${j + 1}] is neither ${IGNORE_INDEX} nor within the vocabulary of ${vocabSize}`,
          { label },
        );
      }
      out.labels[i * length + j] = label;
      out.weights[i * length + j] = 1;
      out.kept++;
    }
  }
  return out;
}

/**
 * Mean loss over the kept positions.
 * @param logits [b, t, v] @param items divides the sum instead of the kept count (gradient accumulation)
 * @returns scalar; NaN when nothing is kept, as in transformers
 */
export function causalLoss(logits: tf.Tensor3D, labels: ShiftedLabels, items?: number): tf.Scalar {
  const [b, t, v] = logits.shape;
  return tf.tidy(() => {
    const flat = tf.reshape(logits, [b * t, v]) as tf.Tensor2D;
    const sum = weightedCrossEntropy(flat, tf.tensor1d(labels.labels, 'int32'), tf.tensor1d(labels.weights));
    return tf.div(sum, items ?? labels.kept) as tf.Scalar;
  });
}
