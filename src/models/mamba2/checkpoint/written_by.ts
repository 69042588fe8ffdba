/**
 * A config.json of model type mamba2, judged by who wrote it. transformers writes keys that it never reads; flash-linear-attention has
 * the same model type and other names for some keys, and reads what transformers does not.
 */
import { quote } from '../../../base/quote.js';
import { ConfigError } from '../../../base/errors.js';

type Config = Record<string, unknown>;

/** Keys of flash-linear-attention that Hugging Face's layout has under another name. */
const RENAMED = {
  norm_eps: 'layer_norm_epsilon',
  dt_limit: 'time_step_limit',
  dt_min: 'time_step_min',
  dt_max: 'time_step_max',
  dt_init_floor: 'time_step_floor',
} as const;

/** Keys that its Mamba-2 has and transformers' has not. */
const OF_FLA = [
  ...Object.keys(RENAMED),
  'rmsnorm',
  'D_has_hdim',
  'A_init_range',
  'conv_init',
  'fuse_norm',
  'fuse_cross_entropy',
  'fuse_linear_cross_entropy',
  'use_l2warp',
];

/** Its defaults, where they are not transformers'. */
const FLA_DEFAULTS: Config = {
  vocab_size: 32000,
  hidden_size: 2048,
  num_hidden_layers: 48,
  n_groups: 1,
  pad_token_id: 0,
  bos_token_id: 1,
  eos_token_id: 2,
  initializer_range: 0.02,
  rescale_prenorm_residual: true,
};

/** Whether flash-linear-attention wrote a config.json. */
export function isFla(config: Config): boolean {
  return config.model_type === 'mamba2' && OF_FLA.some((key) => key in config);
}

/** Keys that transformers 4.43 and 4.44 wrote and no version reads: with other values the model is the same. */
const NEVER_READ: Config = { norm_before_gate: false, rms_norm: true };

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/**
 * The configuration in Hugging Face's keys, without those that say something that its writer never reads.
 * @param config of model type mamba2; not changed
 * @param file where it is from, for messages
 * @throws ConfigError when a key and its other name disagree
 */
export function huggingFaceConfig(config: Config, file: string): Config {
  const fla = isFla(config);
  const out: Config = fla ? { ...FLA_DEFAULTS, ...config } : { ...config };
  for (const [theirs, ours] of Object.entries(RENAMED)) {
    if (!(theirs in config)) continue;
    delete out[theirs];
    if (ours in config && !same(config[theirs], config[ours]))
      throw new ConfigError(
        `${file}: ${theirs} is ${quote(config[theirs])}, but ${ours} is ${quote(config[ours])}: two names of one thing. Remove the one that the model was not trained with.`,
        { file, option: theirs, got: config[theirs], expected: config[ours] },
      );
    out[ours] = config[theirs];
  }
  if (fla) {
    const { expand = 2, hidden_size: hidden, head_dim: head = 64 } = out as Record<string, number>;
    if (out.num_heads === undefined) out.num_heads = Math.trunc((expand * hidden!) / head);
    return out;
  }
  for (const [key, harmless] of Object.entries(NEVER_READ)) if (key in out && out[key] !== harmless) delete out[key];
  return out;
}
