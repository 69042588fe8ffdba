/** Small random models with weights of no special values, and what the oracle says about them. */
import * as tf from '@tensorflow/tfjs';
import { Mamba2Config, type Mamba2ConfigFields } from '../../src/models/mamba2/config.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import {
  type Arr,
  type Arrs,
  type MixerSizes,
  model as oracleModel,
  randomArr,
  type RowState,
  toTensor,
} from './oracle.js';
import { lcg } from './random.js';

/** Two layers, two groups, biases: nothing that a mistake could hide behind. */
export const TINY: Partial<Mamba2ConfigFields> = {
  vocab_size: 11,
  hidden_size: 6,
  num_heads: 4,
  head_dim: 3,
  state_size: 4,
  n_groups: 2,
  num_hidden_layers: 2,
  conv_kernel: 4,
  chunk_size: 4,
  use_bias: true,
  tie_word_embeddings: false,
};

/** One layer that learns in a few steps. */
export const LEARNER = {
  hidden_size: 16,
  num_heads: 4,
  head_dim: 8,
  n_groups: 1,
  state_size: 8,
  vocab_size: 31,
  num_hidden_layers: 1,
  chunk_size: 16,
  tie_word_embeddings: true,
};

export interface TinyModel {
  model: Mamba2ForCausalLM;
  values: Arrs;
  /** One text through the oracle. */
  oracle(ids: readonly number[], before?: readonly RowState[]): { logits: Arr; hidden: Arr; states: RowState[] };
}

/** A model whose weights are random in every entry. Dispose `model`. */
export function tinyModel(overrides: Partial<Mamba2ConfigFields> = {}, seed = 31): TinyModel {
  const config = Mamba2Config.from_dict({ ...TINY, ...overrides });
  const model = new Mamba2ForCausalLM(config);
  const random = lcg(seed);
  const values: Record<string, Arr> = {};
  const variables = model.weights.all() as Record<string, tf.Variable>;
  for (const { name, shape } of model.weights.network.weightSpecs()) {
    values[name] = randomArr(random, shape, -0.8, 0.8);
    tf.tidy(() => variables[name]!.assign(toTensor(values[name]!)));
  }
  const sizes = model.weights.network.blocks[0]!.spec as MixerSizes;
  return {
    model,
    values,
    oracle: (ids, before) => oracleModel({ ...sizes, layers: config.num_hidden_layers }, values, ids, before),
  };
}

/** Ids and the eight that the likeliest of each continue them with. @param model one, or one with an adapter */
export async function eightGreedy(
  model: { generate: Mamba2ForCausalLM['generate'] },
  ids: readonly number[],
): Promise<number[]> {
  const options = { max_new_tokens: 8, do_sample: false, eos_token_id: null };
  const rows = await model.generate({ input_ids: [[...ids]], ...options });
  return rows[0]!;
}

/** Random ids [b][t] below v. */
export function randomIds(random: () => number, b: number, t: number, v: number): number[][] {
  return Array.from({ length: b }, () => Array.from({ length: t }, () => Math.floor(random() * v)));
}
