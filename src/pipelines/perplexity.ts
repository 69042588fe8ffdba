import { letOthersRun } from '../base/async.js';
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';

/** What perplexity() asks of a model: its forward pass with a cache. */
export interface ScoringModel<Cache extends { dispose(): void } = { dispose(): void }> {
  forward(inputs: { input_ids: number[][]; cache?: Cache }): {
    /** [b, t, v] */
    logits: tf.Tensor3D;
    cache?: Cache;
  };
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
      const { logits, cache: next } = model.forward({ input_ids: [input], ...(cache ? { cache } : {}) });
      cache = next;
      const losses = lossesOf(logits, ids.slice(at + 1, at + 1 + input.length));
      nll.set(await losses.data(), at);
      losses.dispose();
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

/** Negative log-likelihood of each target, [t]. Disposes of the logits [1, t, v]. */
function lossesOf(logits: tf.Tensor3D, targets: readonly number[]): tf.Tensor1D {
  const losses = tf.tidy(() => {
    const [, t, v] = logits.shape;
    const flat = tf.reshape(logits, [t * v]);
    const places = tf.tensor1d(
      targets.map((id, i) => i * v + id),
      'int32',
    );
    const picked = tf.gather(flat, places);
    return tf.sub(tf.logSumExp(tf.reshape(logits, [t, v]), 1), picked) as tf.Tensor1D;
  });
  logits.dispose();
  return losses;
}
