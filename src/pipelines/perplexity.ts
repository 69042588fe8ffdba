import { letOthersRun } from '../base/async.js';
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { inPieces, type Pieces } from '../base/pieces.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';

interface Scored<Cache> {
  /** [b, t, v] */
  logits: tf.Tensor3D;
  cache?: Cache;
}

/** What perplexity() asks of a model: its forward pass with a cache. */
export interface ScoringModel<Cache extends { dispose(): void } = { dispose(): void }> {
  forward(inputs: { input_ids: number[][]; cache?: Cache }): Scored<Cache>;
  /** The same, with the event loop running meanwhile: taken where there is one. */
  forwardAsync?(inputs: { input_ids: number[][]; cache?: Cache }): Promise<Scored<Cache>>;
}

/** Options of perplexity(). */
export interface PerplexityOptions {
  /** Ids that are run at once. Bounds memory (segment × vocabulary floats) and changes nothing else. Default 256. */
  segment?: number;
  /** Stops between segments by throwing its reason. */
  signal?: AbortSignal;
  /** Called after each segment with ids scored and in all. */
  on_progress?: (done: number, total: number) => unknown;
}

/** Options of perplexity(). */
const PERPLEXITY_TABLE = new OptionTable<PerplexityOptions>(
  'perplexity()',
  {
    segment: { kind: kinds.integer({ min: 1 }), default: 256 },
    signal: { kind: kinds.abortSignal },
    on_progress: { kind: kinds.func },
  },
  { others: { stride: 'segment', max_length: 'segment', batch_size: { why: 'one text is scored', off: [1] } } },
);

/** How well a model predicts a text. */
export interface PerplexityResult {
  /** Ids that were predicted: all but the first. */
  tokens: number;
  /** Negative log-likelihood of each of them, in nats. */
  nll: Float32Array;
  /** Its mean. */
  mean_nll: number;
  /** The exponential of the mean. */
  perplexity: number;
}

/**
 * Perplexity of a text of any length. The state is carried from segment to segment, so every id is predicted from all
 * ids before it: exactly, and in time proportional to the length.
 *
 * @example
 * const ids = await tokenizer.encode(text);
 * const { perplexity: ppl } = await perplexity(model, ids);
 *
 * @param ids the text, at least two ids
 * @throws ArgumentError for fewer ids or a wrong segment
 */
export async function perplexity<Cache extends { dispose(): void }>(
  model: ScoringModel<Cache>,
  ids: readonly number[],
  options: PerplexityOptions = {},
): Promise<PerplexityResult> {
  const { segment } = PERPLEXITY_TABLE.fill<'segment'>(options);
  const tokens = ids.length - 1;
  if (tokens < 1) {
    throw new ArgumentError(
      `perplexity() got ${ids.length} ids; expected at least two: the first is only predicted from, never predicted.`,
      { got: ids.length },
    );
  }
  const nll = new Float32Array(tokens);
  let cache: Cache | undefined;
  try {
    for (let at = 0; at < tokens; at += segment) {
      options.signal?.throwIfAborted();
      const input = ids.slice(at, Math.min(at + segment, tokens));
      const inputs = { input_ids: [input], ...(cache ? { cache } : {}) };
      const { logits, cache: next } = await (model.forwardAsync?.(inputs) ?? model.forward(inputs));
      cache = next;
      try {
        const losses = lossesOf(logits, ids.slice(at + 1, at + 1 + input.length));
        for (const some of await inPieces(losses, { keeps: (all) => all.map(({ values }) => values) })) {
          nll.set(await some.values.data(), at + some.from);
          some.values.dispose();
        }
      } finally {
        logits.dispose();
      }
      await options.on_progress?.(at + input.length, tokens);
      await letOthersRun(); // that is where an abort is seen
    }
  } finally {
    cache?.dispose();
  }
  // In float64: a float32 sum over a book would lose digits.
  const mean_nll = nll.reduce((sum, value) => sum + value, 0) / tokens;
  return { tokens, nll, mean_nll, perplexity: Math.exp(mean_nll) };
}

/** Targets whose losses are worked out at once: a vocabulary's row for each. */
const AT_ONCE = 32;

/** Negative log-likelihood of the targets, some at a time. @param logits [1, t, v] */
function* lossesOf(logits: tf.Tensor3D, targets: readonly number[]): Pieces<{ from: number; values: tf.Tensor1D }[]> {
  const [, , v] = logits.shape;
  const losses: { from: number; values: tf.Tensor1D }[] = [];
  for (let from = 0; from < targets.length; from += AT_ONCE) {
    if (from > 0) yield;
    const some = targets.slice(from, from + AT_ONCE);
    const values = tf.tidy(() => {
      const rows = tf.reshape(tf.slice(logits, [0, from, 0], [1, some.length, v]), [some.length, v]);
      const places = tf.tensor1d(
        some.map((id, i) => i * v + id),
        'int32',
      );
      const picked = tf.gather(tf.reshape(rows, [some.length * v]), places);
      return tf.sub(tf.logSumExp(rows, 1), picked) as tf.Tensor1D;
    });
    losses.push({ from, values });
  }
  return losses;
}
