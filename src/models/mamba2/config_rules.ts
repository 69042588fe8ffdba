/** The table of Mamba2Config's keys. */
import { ConfigError } from '../../base/errors.js';
import * as kinds from '../../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../../base/options.js';
import type { Mamba2ConfigFields } from './config.js';

const id = kinds.integer();

const isLimit = (v: unknown): boolean =>
  Array.isArray(v) &&
  v.length === 2 &&
  v.every((each) => typeof each === 'number' && !Number.isNaN(each)) &&
  (v[0] as number) <= (v[1] as number) &&
  (v[1] as number) > 0;

/** Rules and defaults of the keys; a key of config.json that is not among them is a note of its writer. */
export const CONFIG_RULES: OptionRules<Mamba2ConfigFields> = {
  num_heads: { kind: kinds.integer({ min: 1 }), default: 128 },
  head_dim: { kind: kinds.integer({ min: 1 }), default: 64 },
  vocab_size: { kind: kinds.integer({ min: 1 }), default: 32768 },
  hidden_size: { kind: kinds.integer({ min: 1 }), default: 4096 },
  state_size: { kind: kinds.integer({ min: 1 }), default: 128 },
  num_hidden_layers: { kind: kinds.integer({ min: 1 }), default: 64 },
  layer_norm_epsilon: { kind: kinds.number({ above: 0 }), default: 1e-5 },
  pad_token_id: { kind: kinds.orNull(id), default: 1 },
  bos_token_id: { kind: kinds.orNull(id), default: 0 },
  eos_token_id: { kind: kinds.orNull(kinds.either(id, kinds.listOf(id, 'ids'))), default: 2 },
  expand: { kind: kinds.number({ above: 0 }), default: 2 },
  conv_kernel: { kind: kinds.integer({ min: 1 }), default: 4 },
  n_groups: { kind: kinds.integer({ min: 1 }), default: 8 },
  use_bias: { kind: kinds.boolean, default: false },
  use_conv_bias: { kind: kinds.boolean, default: true },
  hidden_act: { kind: kinds.oneOf('silu', 'swish'), default: 'silu' },
  initializer_range: { kind: kinds.number({ above: 0 }), default: 0.1 },
  residual_in_fp32: { kind: kinds.boolean, default: true },
  time_step_min: { kind: kinds.number({ above: 0 }), default: 1e-3 },
  time_step_max: { kind: kinds.number({ above: 0 }), default: 0.1 },
  time_step_floor: { kind: kinds.number({ above: 0 }), default: 1e-4 },
  time_step_limit: {
    kind: kinds.named('two numbers, the lower first, the upper positive', isLimit),
    default: [0, Infinity],
  },
  rescale_prenorm_residual: { kind: kinds.boolean, default: false },
  use_cache: { kind: kinds.boolean, default: true },
  chunk_size: { kind: kinds.integer({ min: 1 }), default: 256 },
  tie_word_embeddings: { kind: kinds.boolean, default: false },
  norm_groups: { kind: kinds.oneOf('per_group', 'full'), default: 'per_group' },
};

/** Names in mamba_ssm, in other configurations of transformers, and in flash-linear-attention. */
const OTHERS: OtherNames = {
  d_model: 'hidden_size',
  n_embd: 'hidden_size',
  n_layer: 'num_hidden_layers',
  num_layers: 'num_hidden_layers',
  d_state: 'state_size',
  d_conv: 'conv_kernel',
  headdim: 'head_dim',
  nheads: 'num_heads',
  num_attention_heads: 'num_heads',
  ngroups: 'n_groups',
  norm_eps: 'layer_norm_epsilon',
  rms_norm_eps: 'layer_norm_epsilon',
  dt_min: 'time_step_min',
  dt_max: 'time_step_max',
  dt_init_floor: 'time_step_floor',
  dt_limit: 'time_step_limit',
  tie_embeddings: 'tie_word_embeddings',
  conv_bias: 'use_conv_bias',
  bias: 'use_bias',
  activation: 'hidden_act',
  intermediate_size: { why: 'the inner width is expand times hidden_size' },
  norm_before_gate: { why: 'the gate always comes before the norm', off: [false] },
};

/** Keys that say nothing of the network and that every configuration of transformers may have. */
const NOTES = [
  'model_type',
  'architectures',
  'dtype',
  'torch_dtype',
  'transformers_version',
  'name_or_path',
  '_name_or_path',
  'quantization_config',
  'rms_norm',
] as const;

type Notes = { [K in (typeof NOTES)[number]]?: unknown };
const noteRules = Object.fromEntries(
  NOTES.map((name) => [name, { kind: kinds.anything }]),
) as unknown as OptionRules<Notes>;

/** What new Mamba2Config() takes. */
export const CONFIG_TABLE = new OptionTable<Partial<Mamba2ConfigFields> & Notes>(
  'new Mamba2Config()',
  { ...CONFIG_RULES, ...noteRules },
  { others: OTHERS, error: ConfigError },
);

/** Keys that replace those of a checkpoint's own configuration. */
export const OVERRIDES_TABLE = new OptionTable<Partial<Mamba2ConfigFields>>('The option config', CONFIG_RULES, {
  others: OTHERS,
  error: ConfigError,
});

/** Keys in which a fresh model of the same kind differs. */
export const FRESH_TABLE = new OptionTable<Partial<Mamba2ConfigFields>>('fresh()', CONFIG_RULES, {
  others: OTHERS,
  error: ConfigError,
});
