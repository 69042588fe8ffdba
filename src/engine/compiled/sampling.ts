/**
 * Choosing tokens inside a compiled program. Rules and order are those of the processors on the host (repetition
 * penalty, temperature, top_k, top_p, min_p, then one uniform number per row against the running sum of probabilities
 * in the order of ids), so that a seed gives the same text on either side.
 */
import * as tf from '@tensorflow/tfjs';
import type { EngineSampling } from '../../generation/engine.js';

/** Stands for -Infinity, which would make NaN in products. */
const NEVER = -1e30;
const BLOCK = 256;

/** Running sum over the last axis of [b, v], in two levels of matrix products: a scan of that length is slow when compiled. */
function runningSum(x: tf.Tensor2D): tf.Tensor2D {
  const [b, v] = x.shape;
  const rows = Math.ceil(v / BLOCK);
  return tf.tidy(() => {
    const padded = rows * BLOCK > v ? tf.concat([x, tf.zeros([b, rows * BLOCK - v])], 1) : x;
    const within = tf.matMul(tf.reshape(padded, [b * rows, BLOCK]), upperOnes(BLOCK)); // [b·rows, BLOCK]
    const sums = tf.reshape(tf.slice(within, [0, BLOCK - 1], [b * rows, 1]), [b, rows]);
    const before = tf.sub(tf.matMul(sums, upperOnes(rows)), sums); // [b, rows], exclusive
    const all = tf.add(tf.reshape(within, [b, rows, BLOCK]), tf.reshape(before, [b, rows, 1]));
    return tf.slice(tf.reshape(all, [b, rows * BLOCK]), [0, 0], [b, v]) as tf.Tensor2D;
  });
}

function upperOnes(size: number): tf.Tensor2D {
  const values = new Float32Array(size * size);
  for (let i = 0; i < size; i++) values.fill(1, i * size + i, (i + 1) * size);
  return tf.tensor2d(values, [size, size]);
}

/** The settings vector of a sampling step: temperature, top_k (0 for none), top_p, log of min_p, repetition penalty. */
export function samplingSettings(sampling: EngineSampling): Float32Array {
  const minP = sampling.min_p ? Math.log(sampling.min_p) : NEVER;
  return Float32Array.of(sampling.temperature, sampling.top_k, sampling.top_p, minP, sampling.repetition_penalty);
}

/** True when `sampleTokens` can do it: top_p needs the best candidates, and those are found for a bounded top_k only. */
export function samplesInProgram(sampling: EngineSampling, vocabSize: number, maxTopK: number): boolean {
  const bounded = sampling.top_k > 0 && sampling.top_k <= Math.min(maxTopK, vocabSize);
  return bounded || (sampling.top_k === 0 && sampling.top_p >= 1);
}

/**
 * @param logits [b, v], with removed ids at -Infinity or far below @param history [b, v], 1 for ids said so far
 * @param uniform [b] in [0, 1) @param settings see samplingSettings @param maxTopK the most that top_k may be
 * @returns int32 [b]
 */
export function sampleTokens(
  logits: tf.Tensor2D,
  history: tf.Tensor2D,
  uniform: tf.Tensor1D,
  settings: tf.Tensor1D,
  maxTopK: number,
): tf.Tensor1D {
  const [b, v] = logits.shape;
  const k = Math.min(maxTopK, v);
  return tf.tidy(() => {
    const setting = (i: number): tf.Tensor => tf.slice(settings, [i], [1]);
    const [temperature, topK, topP, logMinP, penalty] = [0, 1, 2, 3, 4].map(setting) as [
      tf.Tensor,
      tf.Tensor,
      tf.Tensor,
      tf.Tensor,
      tf.Tensor,
    ];
    const bounded = tf.maximum(logits, NEVER);
    const penalised = tf.where(tf.greater(bounded, 0), tf.div(bounded, penalty), tf.mul(bounded, penalty));
    const scores = tf.div(tf.where(tf.greater(history, 0), penalised, bounded), temperature); // [b, v]

    // top_k: the k-th best of the candidates is the bound; ties with it stay
    const { values } = tf.topk(scores, k); // [b, k], best first
    const ranks = tf.reshape(tf.range(0, k, 1, 'float32'), [1, k]);
    const atRank = tf.cast(tf.equal(ranks, tf.sub(topK, 1)), 'float32');
    const kth = tf.where(tf.greater(topK, 0), tf.sum(tf.mul(values, atRank), 1, true), tf.fill([b, 1], 2 * NEVER)); // [b, 1]

    // top_p over the candidates: an entry goes while the mass of it and all worse ones is at most 1 - top_p
    const kept = tf.cast(tf.greaterEqual(values, kth), 'float32');
    const best = tf.slice(values, [0, 0], [b, 1]);
    const weights = tf.mul(tf.exp(tf.sub(values, best)), kept);
    const p = tf.div(weights, tf.sum(weights, 1, true));
    const worse = tf.matMul(p, tf.transpose(upperOnes(k))); // mass from each entry to the worst, [b, k]
    const stays = tf.logicalOr(tf.greater(worse, tf.sub(1, topP)), tf.equal(ranks, 0));
    const nucleus = tf.min(
      tf.where(tf.logicalAnd(stays, tf.greater(kept, 0)), values, tf.fill([b, k], -NEVER)),
      1,
      true,
    );
    const bound = tf.where(tf.less(topP, 1), nucleus, kth);
    const floor = tf.maximum(bound, tf.add(best, logMinP)); // [b, 1]

    const mass = tf.where(
      tf.greaterEqual(scores, floor),
      tf.exp(tf.sub(scores, best)),
      tf.zerosLike(scores),
    ) as tf.Tensor2D;
    const running = runningSum(mass);
    const total = tf.slice(running, [0, v - 1], [b, 1]);
    const below = tf.lessEqual(running, tf.mul(tf.reshape(uniform, [b, 1]), total));
    // rounding may leave no entry above the mark: then the last one with any mass is meant
    const positions = tf.reshape(tf.range(0, v, 1, 'float32'), [1, v]);
    const last = tf.max(tf.mul(positions, tf.cast(tf.greater(mass, 0), 'float32')), 1);
    return tf.cast(tf.minimum(tf.sum(tf.cast(below, 'float32'), 1), last), 'int32') as tf.Tensor1D;
  });
}
