/** Mamba2Config: the configuration of a checkpoint, in the keys of Hugging Face's config.json (spec A.1). */
import type { NormGroups } from '../../layers/rms_norm_gated.js';
import type { Mamba2MixerArgs } from '../../layers/mixer_spec.js';
import { ConfigError } from '../../base/errors.js';
import { plain, quote } from '../../base/quote.js';
import type { LMConfig } from '../../engine/recurrent_lm.js';
import { CONFIG_RULES, CONFIG_TABLE } from './config_rules.js';

/** The keys that this model reads. Others are kept in `extra` and written back. */
export interface Mamba2ConfigFields {
  /** h. Default 128. */
  num_heads: number;
  /** p. Default 64; num_heads·head_dim must equal expand·hidden_size. */
  head_dim: number;
  /** Rows of the embedding, v; may be more than the tokenizer has. Default 32768. */
  vocab_size: number;
  /** d. Default 4096. */
  hidden_size: number;
  /** n. Default 128. */
  state_size: number;
  /** Default 64. */
  num_hidden_layers: number;
  /** Epsilon of every norm. Default 1e-5. */
  layer_norm_epsilon: number;
  /** Defaults 1, 0, 2. */
  pad_token_id: number | null;
  bos_token_id: number | null;
  eos_token_id: number | number[] | null;
  /** Inner width over hidden_size. Default 2. */
  expand: number;
  /** k. Default 4. */
  conv_kernel: number;
  /** g. Default 8. */
  n_groups: number;
  /** Biases on in_proj and out_proj. Default false. */
  use_bias: boolean;
  /** Default true. */
  use_conv_bias: boolean;
  /** Activation after the convolution; only 'silu' (or 'swish') exists. */
  hidden_act: string;
  /** Default 0.1. */
  initializer_range: number;
  /** Accepted and without effect: the residual stream is always float32. Default true. */
  residual_in_fp32: boolean;
  /** Range and floor of a fresh dt; these never clamp. Defaults 0.001, 0.1, 0.0001. */
  time_step_min: number;
  time_step_max: number;
  time_step_floor: number;
  /** Bounds of dt after softplus. Default [0, Infinity]. */
  time_step_limit: [number, number];
  /** Divides a fresh out_proj by sqrt(num_hidden_layers). Default false. */
  rescale_prenorm_residual: boolean;
  /** Default true. */
  use_cache: boolean;
  /** Tokens per chunk of the scan; computational only. Default 256. */
  chunk_size: number;
  /** Default false. */
  tie_word_embeddings: boolean;
  /** Ours: the gated norm per group ('per_group', right) or over all channels ('full', as transformers up to 5.22). */
  norm_groups: NormGroups;
}

const NAMES = Object.keys(CONFIG_RULES) as (keyof Mamba2ConfigFields)[];

/** Keys that change what a state means. Speed (chunk_size), initialisation and special ids do not. */
const OF_STATES = [
  'num_hidden_layers',
  'hidden_size',
  'num_heads',
  'head_dim',
  'state_size',
  'n_groups',
  'conv_kernel',
  'vocab_size',
  'expand',
  'use_bias',
  'use_conv_bias',
  'layer_norm_epsilon',
  'time_step_limit',
  'norm_groups',
  'tie_word_embeddings',
] as const;

/** Infinity may come as a number, as the string 'Infinity', or as {"__float__": "Infinity"} (spec D12). */
function floatOf(value: unknown): unknown {
  if (typeof value === 'object' && value !== null && '__float__' in value) return Number(value.__float__);
  if (value === 'Infinity' || value === 'inf') return Infinity;
  return value;
}

/** Gives Mamba2Config the fields' types; the constructor assigns them from the defaults and the given values. */
const Fields = class {} as unknown as new () => Mamba2ConfigFields;

/**
 * A checked configuration. Fields have the names of config.json; unknown keys are kept in `extra`.
 *
 * @throws ConfigError naming the key, when a value is malformed or sizes contradict each other
 * @example
 * const config = new Mamba2Config({ hidden_size: 64, num_heads: 4, head_dim: 32, n_groups: 1, vocab_size: 100 });
 */
export class Mamba2Config extends Fields implements LMConfig {
  readonly model_type = 'mamba2';
  /** Keys of config.json that the model does not read, written back as they were. */
  readonly extra: Readonly<Record<string, unknown>>;

  /** @param values keys of config.json by name; what is left out has transformers' default */
  constructor(values: Partial<Mamba2ConfigFields> = {}) {
    super();
    CONFIG_TABLE.checkObject(values);
    for (const [name, value] of Object.entries(values)) CONFIG_TABLE.checkName(name, value);
    this.extra = this.assign(values);
  }

  /**
   * The configuration that a config.json holds. Unlike the constructor it keeps keys that it does not know, in `extra`.
   * @throws ConfigError naming the key, when a value is malformed or sizes contradict each other
   * @example
   * const { extra } = Mamba2Config.from_dict({ hidden_size: 8, num_heads: 2, head_dim: 8, n_groups: 1, my_note: 'x' });
   */
  static from_dict(values: Readonly<Record<string, unknown>>): Mamba2Config {
    const config = new Mamba2Config();
    return Object.assign(config, { extra: config.assign(values) });
  }

  /** Takes the keys that the model reads, checked, and returns the rest. */
  private assign(values: Readonly<Record<string, unknown>>): Record<string, unknown> {
    const extra: Record<string, unknown> = {};
    const fields: Record<string, unknown> = {};
    for (const name of NAMES) fields[name] = structuredClone(CONFIG_RULES[name].default);
    for (const [name, value] of Object.entries(values)) {
      if (name === 'model_type') continue;
      if (!Object.hasOwn(CONFIG_RULES, name)) extra[name] = value;
      else if (value !== undefined) fields[name] = Array.isArray(value) ? value.map(floatOf) : value;
    }
    const { model_type: type = 'mamba2' } = values;
    if (type !== 'mamba2') {
      const named = typeof type === 'string' ? plain(type) : quote(type);
      throw new ConfigError(`config: model_type is '${named}', expected 'mamba2'`, { model_type: type });
    }
    if (extra.rms_norm === false)
      throw new ConfigError('config: rms_norm is false, expected true: LayerNorm models are not supported', {});
    Object.assign(this, fields);
    this.check();
    return extra;
  }

  private check(): void {
    const fail = (key: keyof Mamba2ConfigFields, expected: string): never => {
      const got = this[key];
      throw new ConfigError(`config: ${key} is ${quote(got)}, expected ${expected}`, {
        key,
        option: key,
        got,
        expected,
      });
    };
    for (const key of NAMES) if (!CONFIG_RULES[key].kind.ok(this[key])) fail(key, CONFIG_RULES[key].kind.expected);
    const inner = this.inner_size;
    if (this.num_heads * this.head_dim !== inner) {
      throw new ConfigError(
        `config: num_heads·head_dim is ${this.num_heads}·${this.head_dim} = ${this.num_heads * this.head_dim}, ` +
          `expected expand·hidden_size = ${this.expand}·${this.hidden_size} = ${inner}`,
        { num_heads: this.num_heads, head_dim: this.head_dim, expand: this.expand, hidden_size: this.hidden_size },
      );
    }
    if (this.num_heads % this.n_groups !== 0) fail('n_groups', `a divisor of num_heads (${this.num_heads})`);
  }

  /** h·p, the width inside the mixer. */
  get inner_size(): number {
    return Math.floor(this.expand * this.hidden_size);
  }

  /** Ids that end a text. */
  get eos_token_ids(): number[] {
    const eos = this.eos_token_id;
    return eos === null ? [] : Array.isArray(eos) ? eos : [eos];
  }

  /** The arguments of this model's blocks. `chunkSize` is what runs fast, not what the authors' kernels used. */
  mixerArgs(): Mamba2MixerArgs {
    return {
      hiddenSize: this.hidden_size,
      numHeads: this.num_heads,
      headDim: this.head_dim,
      nGroups: this.n_groups,
      stateSize: this.state_size,
      convKernel: this.conv_kernel,
      chunkSize: Math.min(this.chunk_size, 64),
      useBias: this.use_bias,
      useConvBias: this.use_conv_bias,
      epsilon: this.layer_norm_epsilon,
      timeStepLimit: [this.time_step_limit[0], this.time_step_limit[1]],
      normGroups: this.norm_groups,
      initializerRange: this.initializer_range,
      timeStepMin: this.time_step_min,
      timeStepMax: this.time_step_max,
      timeStepFloor: this.time_step_floor,
      outProjDivisor: this.rescale_prenorm_residual ? Math.sqrt(this.num_hidden_layers) : 1,
    };
  }

  /** What changes the meaning of a state, key by key, as text; infinities as words, which JSON has no numbers for. */
  fingerprint(): Record<string, string> {
    const text = (value: unknown): string =>
      Array.isArray(value) ? `[${value.map(String).join(', ')}]` : String(value);
    return Object.fromEntries(OF_STATES.map((key) => [key, text(this[key])]));
  }

  /** A plain record with the keys of config.json; Infinity stays a number (the writer of JSON spells it). */
  to_dict(): Record<string, unknown> {
    const fields: Record<string, unknown> = {};
    for (const key of NAMES) fields[key] = (this as unknown as Record<string, unknown>)[key];
    return { architectures: ['Mamba2ForCausalLM'], ...this.extra, ...fields, model_type: this.model_type };
  }
}
