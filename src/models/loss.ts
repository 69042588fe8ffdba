/** Causal language-model loss (spec B.11; Hugging Face loss_utils.py, ForCausalLMLoss). */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { IGNORE_INDEX, weightedCrossEntropy } from '../layers/cross_entropy.js';

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
