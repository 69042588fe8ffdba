/** What rows of a batch take of the memory, before anything is made for them. */
import type { StateDtype } from './compiled/program_states.js';
import type { StatesOf } from './states/cache.js';

/** What makes a batch smaller. */
export const FEWER_ROWS = 'Use fewer rows: smaller batches, fewer beams or sequences for each prompt.';

/** Bytes of the states of one row. */
export function stateBytes(network: StatesOf, dtype: StateDtype = 'float32'): number {
  const ofLayer = network.stateSpecs().reduce((sum, { shape, bfloat16 }) => {
    const width = bfloat16 && dtype === 'bfloat16' ? 2 : 4;
    return sum + shape.reduce((a, n) => a * n, width);
  }, 0);
  return ofLayer * network.config.num_hidden_layers;
}

/** Bytes of the logits of one row, or of anything else of which each id has a number. */
export const logitsBytes = (network: StatesOf): number => 4 * network.config.vocab_size;
