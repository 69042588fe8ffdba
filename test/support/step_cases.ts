/** Small models that prepared steps are tested with. */
import { EagerEngine } from '../../src/engine/eager_engine.js';
import type { EagerState } from '../../src/engine/states/eager_state.js';
import type { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import type { Mamba2ConfigFields } from '../../src/models/mamba2/config.js';
import { quantize } from '../../src/models/quantize.js';
import { Int4WeightOnlyConfig, Int8WeightOnlyConfig } from '../../src/quant/index.js';
import { tinyModel } from './tiny_model.js';

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

/** What makes models, engines and states for them. @param cleanup is given all of these @param prompt of states where nothing is said */
export function stepMakers(
  cleanup: { push(...items: { dispose(): unknown }[]): unknown },
  prompt: Int32Array,
): {
  modelOf: (about: StepCase) => Promise<Mamba2ForCausalLM>;
  engineOf: (model: Mamba2ForCausalLM) => EagerEngine;
  stateOf: (engine: EagerEngine, ids?: Int32Array) => Promise<EagerState>;
} {
  return {
    modelOf: async ({ config, bits }) => {
      const { model } = tinyModel(config);
      cleanup.push(model);
      const int4 = (): Int4WeightOnlyConfig => new Int4WeightOnlyConfig({ group_size: 32 });
      if (bits) await quantize(model, bits === 4 ? int4() : new Int8WeightOnlyConfig());
      return model;
    },
    engineOf: (model) => {
      const engine = new EagerEngine(model.weights);
      cleanup.push(engine);
      return engine;
    },
    stateOf: async (engine, ids = prompt) => {
      const state = await engine.createState(1);
      cleanup.push(state);
      await engine.prefill(state, [ids]);
      return state;
    },
  };
}
