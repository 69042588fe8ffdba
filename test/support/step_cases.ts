/** Small models that prepared steps are tested with. */
import type { Mamba2ConfigFields } from '../../src/models/mamba2/config.js';

export const LARGER: Partial<Mamba2ConfigFields> = {
  ...{ vocab_size: 300, hidden_size: 64, num_heads: 4, head_dim: 32, state_size: 16, n_groups: 1, use_bias: false },
};

export interface StepCase {
  readonly config: Partial<Mamba2ConfigFields>;
  readonly bits?: 4 | 8;
}

export const STEP_CASES: Readonly<Record<string, StepCase>> = {
  'two groups, biases, sizes that leave rests': { config: {} },
  'a norm over all groups': { config: { norm_groups: 'full' } },
  'a tied head': { config: { tie_word_embeddings: true } },
  'one tap': { config: { conv_kernel: 1 } },
  'limits on dt, no bias of the convolution': { config: { time_step_limit: [0.2, 1.1], use_conv_bias: false } },
  'sizes in eights': { config: LARGER },
  int4: { config: LARGER, bits: 4 },
  int8: { config: { ...LARGER, tie_word_embeddings: true }, bits: 8 },
};
