/** Log-probabilities of a prompt's own tokens, which `echo` with `logprobs` asks for: each token is fed, and the next one looked up. */
import { letOthersRun } from '../base/async.js';
import { logprobsOf } from '../engine/scheduler/logprobs.js';
import type { TokenLogprobs } from '../engine/scheduler/types.js';
import type { CausalLM } from '../models/causal_lm.js';

/**
 * @param ids at least one
 * @param top how many of the best at each place
 * @param limit ids from here on pad the vocabulary
 * @returns of each id but the first, which nothing predicts
 */
export async function promptLogprobs(
  model: CausalLM,
  ids: readonly number[],
  top: number,
  limit: number,
  signal: AbortSignal,
): Promise<TokenLogprobs[]> {
  const engine = await model.engine();
  const state = await engine.createState(1);
  const result: TokenLogprobs[] = [];
  try {
    for (const [at, id] of ids.entries()) {
      signal.throwIfAborted();
      if (at > 0) result.push(logprobsOf((await engine.logits(state))[0]!, limit, id, top));
      if (at === ids.length - 1) break;
      if (at === 0) await engine.prefill(state, [Int32Array.of(id)], { signal });
      else await engine.step(state, Int32Array.of(id));
      await letOthersRun();
    }
  } finally {
    state.dispose();
  }
  return result;
}
