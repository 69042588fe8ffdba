/**
 * Choosing tokens inside a compiled program. Rules and order are those of the processors on the host (repetition
 * penalty, then the warpers in transformers' order, then one uniform number per row against the running sum of
 * probabilities in the order of ids), so that a seed gives the same text on either side. All settings are inputs: of
 * a rule that is off only the question costs time. Nothing is sorted; bounds are found bit by bit (threshold.ts).
 */
import * as tf from '@tensorflow/tfjs';
import type { EngineSampling } from '../../generation/engine.js';
import { whileLoop } from '../../jit/index.js';
import { compilesForGpu } from '../../jit/trace/backend.js';
import { greatest, orderKeys, SIGNED, UNSIGNED } from './threshold.js';

/** What is given in place of an id where none can be chosen: a score is NaN or Infinity, or no id is left. */
export const CHOICE = { invalid: -1, none: -2 } as const;

const SETTINGS = ['temperature', 'top_k', 'mass_removed', 'min_p', 'penalty', 'typical_p', 'epsilon', 'eta'] as const;

/** The settings of all rows together, or one after another [b, settings]. */
export type Settings = tf.Tensor1D | tf.Tensor2D;

/** Length of the settings vector of a sampling step. */
export const SETTINGS_SIZE = SETTINGS.length;

/** The settings vector of a sampling step. */
export function samplingSettings(sampling: EngineSampling): Float32Array {
  const values: Record<(typeof SETTINGS)[number], number> = {
    temperature: sampling.temperature,
    top_k: sampling.top_k,
    mass_removed: 1 - sampling.top_p,
    min_p: sampling.min_p ?? 0,
    penalty: sampling.repetition_penalty,
    typical_p: sampling.typical_p ?? 1,
    epsilon: sampling.epsilon_cutoff ?? 0,
    eta: sampling.eta_cutoff ?? 0,
  };
  return Float32Array.from(SETTINGS, (name) => values[name]);
}

/** Values that cost work only where it is wanted: the same as given where `on` is false. @param on bool scalar */
export function onlyWhere(on: tf.Tensor, given: tf.Tensor, work: (given: tf.Tensor) => tf.Tensor): tf.Tensor {
  const [, made] = whileLoop(
    ([go]) => go!,
    ([, x]) => [tf.scalar(false, 'bool'), work(x!)],
    [on, given],
  );
  return made!;
}

/** Whether it is so of any of a few rows. @param on bool [1 or b, 1] @returns bool scalar */
export const anyOf = (on: tf.Tensor): tf.Tensor => (on.shape[0] === 1 ? tf.reshape(on, []) : tf.any(on));

/** Weights [b, v] that a rule leaves, in the rows where it is on: what it removes has weight 0. @param on bool [1 or b, 1] */
function rule(on: tf.Tensor, weights: tf.Tensor, work: (weights: tf.Tensor) => tf.Tensor): tf.Tensor {
  const ofAll = on.shape[0] === 1;
  return onlyWhere(anyOf(on), weights, (w) => (ofAll ? work(w) : tf.where(on, work(w), w)));
}

const rowSum = (x: tf.Tensor): tf.Tensor => tf.sum(x, 1, true);
const kept = (mask: tf.Tensor, weights: tf.Tensor): tf.Tensor => tf.where(mask, weights, tf.zerosLike(weights));

/** The rules over weights of the best's probability. @param x [b, v] log of the weights before any rule */
class Rules {
  readonly positions: tf.Tensor; // [1, v]

  /** @param keys [b, v], see orderKeys */
  constructor(
    private readonly scores: tf.Tensor,
    private readonly keys: tf.Tensor,
    private readonly x: tf.Tensor,
  ) {
    this.positions = tf.reshape(tf.range(0, scores.shape[1]!, 1, 'int32'), [1, -1]);
  }

  /** The k best of those that are left; ties with the last stay. */
  topK(weights: tf.Tensor, k: tf.Tensor): tf.Tensor {
    const left = tf.where(tf.greater(weights, 0), this.keys, tf.fill(this.keys.shape, SIGNED.least, 'int32'));
    const atLeast = (bound: tf.Tensor): tf.Tensor => rowSum(tf.cast(tf.greaterEqual(left, bound), 'int32'));
    const count = tf.cast(k, 'int32');
    const bound = greatest(SIGNED, this.rows, (at) => tf.greaterEqual(atLeast(at), count));
    return kept(tf.greaterEqual(this.keys, bound), weights);
  }

  /** Removes the worst whose probabilities sum to `removed` at most; of equals the first ids go. */
  topP(weights: tf.Tensor, removed: tf.Tensor): tf.Tensor {
    const most = tf.mul(rowSum(weights), removed); // [b, 1]
    const below = (bound: tf.Tensor): tf.Tensor => rowSum(kept(tf.less(this.keys, bound), weights));
    const best = tf.max(this.keys, 1, true);
    const bound = tf.minimum(
      greatest(SIGNED, this.rows, (at) => tf.lessEqual(below(at), most)),
      best,
    );
    const tied = tf.equal(this.keys, bound);
    const each = tf.max(kept(tied, weights), 1, true);
    const ties = rowSum(tf.cast(tied, 'int32'));
    const room = tf.floor(tf.div(tf.sub(most, below(bound)), each));
    // -1 ids, or as many as all ties, where a weight is 0
    const go = tf.minimum(tf.cast(tf.maximum(tf.minimum(room, 2 ** 24), 0), 'int32'), tf.sub(ties, 1)); // [b, 1]
    const before = (at: tf.Tensor): tf.Tensor =>
      rowSum(tf.cast(tf.logicalAnd(tied, tf.less(this.positions, at)), 'int32'));
    const first = greatest(
      { least: 0, step: 2 ** Math.ceil(Math.log2(this.scores.shape[1]!)) },
      this.rows,
      (at) => tf.lessEqual(before(at), go),
      tf.any(tf.greater(go, 0)),
    );
    const stays = tf.logicalOr(tf.equal(go, 0), tf.greaterEqual(this.positions, first));
    return kept(tf.logicalOr(tf.greater(this.keys, bound), tf.logicalAnd(tied, stays)), weights);
  }

  /** Those whose surprise is nearest to the entropy, up to a mass. */
  typical(weights: tf.Tensor, mass: tf.Tensor): tf.Tensor {
    const total = rowSum(weights);
    const surprise = tf.sub(tf.log(total), this.x);
    const far = tf.abs(tf.sub(surprise, this.entropy(weights)));
    const distance = orderKeys(tf.where(tf.greater(weights, 0), far, tf.fill(far.shape, Infinity)));
    const nearer = (bound: tf.Tensor): tf.Tensor => rowSum(kept(tf.less(distance, bound), weights));
    const bound = greatest(UNSIGNED, this.rows, (at) => tf.less(nearer(at), tf.mul(total, mass)));
    return kept(tf.lessEqual(distance, bound), weights);
  }

  /** Those with a probability of a bound or more, and the best. */
  cut(weights: tf.Tensor, bound: tf.Tensor): tf.Tensor {
    const probable = tf.greaterEqual(tf.div(weights, rowSum(weights)), bound);
    return kept(tf.logicalOr(probable, tf.equal(weights, tf.max(weights, 1, true))), weights);
  }

  eta(weights: tf.Tensor, epsilon: tf.Tensor): tf.Tensor {
    const bound = tf.mul(tf.sqrt(epsilon), tf.exp(tf.neg(this.entropy(weights))));
    return this.cut(weights, tf.minimum(epsilon, bound));
  }

  /** [b, 1] */
  private entropy(weights: tf.Tensor): tf.Tensor {
    const total = rowSum(weights);
    const p = tf.div(weights, total);
    return rowSum(kept(tf.greater(weights, 0), tf.mul(p, tf.sub(tf.log(total), this.x))));
  }

  private get rows(): number {
    return this.scores.shape[0];
  }
}

/** The first position at which the running sum of weights [b, v] exceeds `uniform` [b] times the total; int32 [b]. */
function drawn(weights: tf.Tensor, uniform: tf.Tensor1D): tf.Tensor1D {
  const [b, v] = weights.shape as [number, number];
  const size = 2 ** Math.ceil(Math.log2(Math.sqrt(v)));
  const blocks = Math.ceil(v / size);
  const whole = blocks * size > v ? tf.concat([weights, tf.zeros([b, blocks * size - v])], 1) : weights;
  const parts = tf.reshape(whole, [b * blocks, size]);
  const inBlocks = tf.reshape(tf.sum(parts, 1), [b, blocks]);
  const running = upTo(inBlocks);
  const mark = tf.mul(tf.reshape(uniform, [b, 1]), tf.slice(running, [0, blocks - 1], [b, 1])); // [b, 1]
  const block = firstAbove(running, mark, inBlocks); // [b, 1]
  const at = tf.add(block, tf.reshape(tf.range(0, b, 1, 'int32'), [b, 1]).mul(tf.scalar(blocks, 'int32')));
  const part = tf.gather(parts, tf.reshape(at, [b]) as tf.Tensor1D); // [b, size]
  const here = tf.equal(tf.reshape(tf.range(0, blocks, 1, 'int32'), [1, blocks]), block);
  const before = rowSum(kept(here, tf.sub(running, inBlocks)));
  const within = firstAbove(tf.add(upTo(part), before), mark, part);
  return tf.reshape(tf.add(tf.mul(block, tf.scalar(size, 'int32')), within), [b]) as tf.Tensor1D;
}

/** Running sum over the last axis of [b, n], n small. */
function upTo(x: tf.Tensor): tf.Tensor {
  const [b, n] = x.shape as [number, number];
  const positions = tf.range(0, n, 1, 'int32');
  const counts = tf.lessEqual(tf.reshape(positions, [1, 1, n]), tf.reshape(positions, [1, n, 1]));
  return tf.sum(tf.mul(tf.reshape(x, [b, 1, n]), tf.cast(counts, 'float32')), 2);
}

/** The first position whose running sum is above the mark; where rounding leaves none, the last that has any weight. int32 [b, 1] */
function firstAbove(running: tf.Tensor, mark: tf.Tensor, weights: tf.Tensor): tf.Tensor {
  const positions = tf.reshape(tf.range(0, weights.shape[1]!, 1, 'int32'), [1, -1]);
  const last = tf.max(tf.mul(positions, tf.cast(tf.greater(weights, 0), 'int32')), 1, true);
  return tf.minimum(rowSum(tf.cast(tf.lessEqual(running, mark), 'int32')), last);
}

/**
 * The best id of each row, the first of equals; or what CHOICE has.
 * @param scores [b, v], -Infinity for what must not be chosen @returns int32 [b]
 */
export function bestTokens(scores: tf.Tensor2D): tf.Tensor1D {
  if (compilesForGpu()) return orNone(tf.argMax(scores, 1) as tf.Tensor1D, scores);
  // two plain reductions take a CPU a tenth of the time of one that carries indices along
  const v = scores.shape[1];
  const positions = tf.reshape(tf.range(0, v, 1, 'int32'), [1, v]);
  const isBest = tf.equal(scores, tf.max(scores, 1, true));
  const first = tf.min(tf.where(isBest, positions, tf.fill(scores.shape, v - 1, 'int32')), 1);
  return orNone(first as tf.Tensor1D, scores);
}

/** The ids, or what CHOICE has where there can be none. */
function orNone(ids: tf.Tensor1D, scores: tf.Tensor2D): tf.Tensor1D {
  // a sum, and not any(): that is one element at a time on a CPU
  const invalid = tf.less(tf.sum(tf.cast(tf.less(scores, Infinity), 'int32'), 1), scores.shape[1]);
  const none = tf.equal(tf.max(scores, 1), -Infinity);
  const of = (choice: number): tf.Tensor => tf.fill(ids.shape, choice, 'int32');
  return tf.where(invalid, of(CHOICE.invalid), tf.where(none, of(CHOICE.none), ids)) as tf.Tensor1D;
}

/**
 * Traced code only.
 * @param logits [b, v], with removed ids at -Infinity @param history [b, v], 1 for ids said so far
 * @param uniform [b] in [0, 1) @param settings see samplingSettings; of all rows, or [b, settings]
 * @returns int32 [b]; what CHOICE has where no id can be chosen
 */
export function sampleTokens(
  logits: tf.Tensor2D,
  history: tf.Tensor2D,
  uniform: tf.Tensor1D,
  settings: Settings,
): tf.Tensor1D {
  return tf.tidy(() => drawToken(penalised(logits, history, settings), uniform, settings));
}

/** As sampleTokens(), of scores that are penalised already. */
export function drawToken(penalisedScores: tf.Tensor, uniform: tf.Tensor1D, settings: Settings): tf.Tensor1D {
  const scores = tf.div(penalisedScores, setting(settings, 'temperature')) as tf.Tensor2D;
  return orNone(drawn(remaining(scores, settings), uniform), scores);
}

/** Scores less what repetition_penalty takes from ids that were had. @param history [b, v], above 0 for those */
export function penalised(logits: tf.Tensor, history: tf.Tensor, settings: Settings): tf.Tensor {
  const penalty = setting(settings, 'penalty');
  const changed = tf.where(tf.less(logits, 0), tf.mul(logits, penalty), tf.div(logits, penalty));
  return tf.where(tf.greater(history, 0), changed, logits);
}

/** [1 or b, 1] */
const setting = (settings: Settings, name: (typeof SETTINGS)[number]): tf.Tensor => {
  const rows = tf.reshape(settings, [-1, SETTINGS_SIZE]);
  return tf.slice(rows, [0, SETTINGS.indexOf(name)], [rows.shape[0], 1]);
};

/**
 * Weights [b, v] after all rules but those of penalty and temperature: probabilities by that of the best, 0 for what is removed.
 * Traced code only.
 */
export function remaining(scores: tf.Tensor2D, settings: Settings): tf.Tensor {
  const best = tf.max(scores, 1, true);
  const x = tf.where(tf.equal(scores, best), tf.zerosLike(scores), tf.sub(scores, best));
  const rules = new Rules(scores, orderKeys(scores), x);
  let weights: tf.Tensor = tf.exp(x);
  const [k, removed, typical, epsilon, eta] = (['top_k', 'mass_removed', 'typical_p', 'epsilon', 'eta'] as const).map(
    (name) => setting(settings, name),
  ) as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
  weights = rule(tf.greater(k, 0), weights, (w) => rules.topK(w, k));
  weights = rule(tf.greater(removed, 0), weights, (w) => rules.topP(w, removed));
  weights = kept(tf.greaterEqual(weights, setting(settings, 'min_p')), weights);
  weights = rule(tf.less(typical, 1), weights, (w) => rules.typical(w, typical));
  weights = rule(tf.greater(epsilon, 0), weights, (w) => rules.cut(w, epsilon));
  return rule(tf.greater(eta, 0), weights, (w) => rules.eta(w, eta));
}
