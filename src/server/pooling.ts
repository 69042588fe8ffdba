/** Texts as vectors: hidden states after the last norm, pooled while they are read. */
import { letOthersRun } from '../base/async.js';
import type { CausalLM } from '../models/causal_lm.js';

/** Tokens that are read between two looks at whoever else waits. */
const PIECE = 256;

/** @param ids at least one @param pooling their mean, or the last, which has seen all */
export async function pooled(
  model: CausalLM,
  ids: readonly number[],
  pooling: 'mean' | 'last',
  signal: AbortSignal,
): Promise<Float32Array> {
  const engine = await model.engine();
  const state = await engine.createState(1);
  let sum: Float64Array | null = null;
  const add = (hidden: Float32Array, tokens: number): void => {
    const width = hidden.length / tokens;
    sum ??= new Float64Array(width);
    if (pooling === 'last') sum.set(hidden.subarray((tokens - 1) * width));
    else for (let at = 0; at < hidden.length; at++) sum[at % width]! += hidden[at]!;
  };
  try {
    for (let at = 0; at < ids.length; at += PIECE) {
      signal.throwIfAborted();
      const piece = Int32Array.from(ids.slice(at, at + PIECE));
      await engine.prefill(state, [piece], { signal, on_hidden: (_row, hidden, _at, tokens) => add(hidden, tokens) });
      await letOthersRun();
    }
  } finally {
    state.dispose();
  }
  const divisor = pooling === 'mean' ? ids.length : 1;
  return Float32Array.from(sum!, (value) => value / divisor);
}
