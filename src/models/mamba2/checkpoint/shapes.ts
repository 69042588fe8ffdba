/** Sizes of a Mamba-2 and shapes of its tensors, from a configuration alone. */
import { ConfigError } from '../../../base/errors.js';
import { quote } from '../../../base/quote.js';
import type { ModelDimensions } from '../../../checkpoints/model_format.js';

/** Sizes of a Mamba-2, from a configuration in Hugging Face's keys. */
export interface Dimensions extends ModelDimensions {
  readonly layers: number;
  readonly hidden: number;
  readonly vocab: number;
  readonly inner: number;
  readonly heads: number;
  readonly head_dim: number;
  readonly groups: number;
  readonly state: number;
  readonly kernel: number;
  readonly conv_dim: number;
  readonly projection: number;
  readonly use_bias: boolean;
  readonly use_conv_bias: boolean;
  readonly tied: boolean;
}

/** Defaults of transformers' Mamba2Config for keys that a config.json leaves out. */
const DEFAULTS = {
  num_hidden_layers: 64,
  hidden_size: 4096,
  vocab_size: 32768,
  num_heads: 128,
  head_dim: 64,
  n_groups: 8,
  state_size: 128,
  conv_kernel: 4,
  expand: 2,
} as const;

/** More layers than any model has: names of so many tensors would fill the memory. */
const MOST_LAYERS = 100_000;

/**
 * The sizes that a configuration declares.
 * @param file where it is from, for messages
 * @throws ConfigError when one is not a positive whole number, or they contradict each other
 */
export function dimensionsOf(config: Record<string, unknown>, file = 'config.json'): Dimensions {
  const size = (key: keyof typeof DEFAULTS): number => {
    const value = config[key] ?? DEFAULTS[key];
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value;
    throw new ConfigError(`${file}: ${key} is ${quote(value)}; expected a positive whole number.`, {
      option: key,
      got: value,
    });
  };
  const hidden = size('hidden_size');
  const expand = config.expand ?? DEFAULTS.expand;
  if (typeof expand !== 'number' || !(expand > 0))
    throw new ConfigError(`${file}: expand is ${quote(expand)}; expected a positive number.`, {
      option: 'expand',
      got: expand,
    });
  const inner = Math.trunc(expand * hidden);
  const [heads, headDim, groups, state] = [size('num_heads'), size('head_dim'), size('n_groups'), size('state_size')];
  if (heads * headDim !== inner)
    throw new ConfigError(
      `${file}: num_heads ${heads} × head_dim ${headDim} is ${heads * headDim}; expand ${expand} × hidden_size ${hidden} is ${inner}. They must be equal.`,
      { option: 'num_heads', got: heads * headDim, expected: inner },
    );
  if (heads % groups !== 0)
    throw new ConfigError(`${file}: num_heads ${heads} is not a multiple of n_groups ${groups}.`, {
      option: 'n_groups',
      got: groups,
    });
  const flag = (key: string, otherwise: boolean): boolean => {
    const value = config[key] ?? otherwise;
    if (typeof value === 'boolean') return value;
    throw new ConfigError(`${file}: ${key} is ${quote(value)}; expected true or false.`, {
      option: key,
      got: value,
    });
  };
  const convDim = inner + 2 * groups * state;
  const layers = size('num_hidden_layers');
  if (layers > MOST_LAYERS)
    throw new ConfigError(`${file}: num_hidden_layers is ${layers}; at most ${MOST_LAYERS} are expected.`, {
      option: 'num_hidden_layers',
      got: layers,
    });
  return {
    layers,
    hidden,
    vocab: size('vocab_size'),
    inner,
    heads,
    head_dim: headDim,
    groups,
    state,
    kernel: size('conv_kernel'),
    conv_dim: convDim,
    projection: inner + convDim + heads,
    use_bias: flag('use_bias', false),
    use_conv_bias: flag('use_conv_bias', true),
    tied: flag('tie_word_embeddings', false),
  };
}

/**
 * Every tensor of the model that a configuration describes, with its shape. A tied head is not among them.
 * @throws ConfigError when the configuration contradicts itself
 */
export function expectedTensors(config: Record<string, unknown>, file?: string): Map<string, number[]> {
  const d = dimensionsOf(config, file);
  const out = new Map<string, number[]>([['backbone.embeddings.weight', [d.vocab, d.hidden]]]);
  for (let i = 0; i < d.layers; i++) {
    const layer = `backbone.layers.${i}`;
    out.set(`${layer}.norm.weight`, [d.hidden]);
    out.set(`${layer}.mixer.in_proj.weight`, [d.projection, d.hidden]);
    if (d.use_bias) out.set(`${layer}.mixer.in_proj.bias`, [d.projection]);
    out.set(`${layer}.mixer.conv1d.weight`, [d.conv_dim, 1, d.kernel]);
    if (d.use_conv_bias) out.set(`${layer}.mixer.conv1d.bias`, [d.conv_dim]);
    for (const name of ['dt_bias', 'A_log', 'D']) out.set(`${layer}.mixer.${name}`, [d.heads]);
    out.set(`${layer}.mixer.norm.weight`, [d.inner]);
    out.set(`${layer}.mixer.out_proj.weight`, [d.hidden, d.inner]);
    if (d.use_bias) out.set(`${layer}.mixer.out_proj.bias`, [d.hidden]);
  }
  out.set('backbone.norm_f.weight', [d.hidden]);
  if (!d.tied) out.set('lm_head.weight', [d.vocab, d.hidden]);
  return out;
}
