/** Log-probabilities of an id and of the best, from a model's logits. */
import { kthLargest, logSoftmax } from '../../generation/scores.js';
import type { TokenLogprob, TokenLogprobs } from './types.js';

/** @param logits of one row, which are used up @param limit ids from here on pad the vocabulary @param top how many of the best */
export function logprobsOf(logits: Float32Array, limit: number, id: number, top: number): TokenLogprobs {
  const scores = logits.subarray(0, limit);
  logSoftmax(scores);
  return { id, logprob: scores[id]!, top: top > 0 ? bestOf(scores, top) : [] };
}

/** The best, of equals the first. Few of a vocabulary: it need not be sorted for them. */
function bestOf(scores: Float32Array, count: number): TokenLogprob[] {
  const least = kthLargest(scores, count);
  const found: TokenLogprob[] = [];
  for (let id = 0; id < scores.length; id++) {
    const logprob = scores[id]!;
    if (logprob >= least && logprob > -Infinity) found.push({ id, logprob });
  }
  return found.sort((a, b) => b.logprob - a.logprob).slice(0, count);
}
