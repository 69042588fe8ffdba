/**
 * What to quantise and how: the configuration classes of torchao and transformers, and their form in config.json.
 *
 * Int4 is torchao's asymmetric weight-only scheme with a floating-point zero; int8 its symmetric one, a scale a row.
 */
import { ConfigError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import { plain, quote } from '../base/quote.js';

/** Sizes of int4 groups, as in torchao. */
export const GROUP_SIZES = [32, 64, 128, 256] as const;

/** How the range of a group is chosen: 'minmax' as torchao does, 'search' for the least squared error (slower). */
export type Rounding = 'minmax' | 'search';

/** Stored type of scales and zeros. 'auto': bfloat16 for a bfloat16 matrix, as in torchao; float32 for any other. */
export type ScaleDtype = 'auto' | 'float32' | 'bfloat16';

/** Options that both kinds share. */
export interface WeightOnlyOptions {
  /**
   * Modules to leave in float: a name ('backbone.layers.0'), its end ('out_proj'), with * for any characters; or a
   * RegExp on the whole name of the weight. Default none.
   */
  modules_to_not_convert?: readonly (string | RegExp)[] | null;
  /** Quantise the embedding and the head too. Default false. */
  include_input_output_embeddings?: boolean;
  /** Default 'auto'. */
  scale_dtype?: ScaleDtype;
}

export interface Int4WeightOnlyOptions extends WeightOnlyOptions {
  /** Input channels that share a scale and a zero: 32, 64, 128 or 256. Default 128. */
  group_size?: number;
  /** Default 'minmax'. */
  rounding?: Rounding;
  /**
   * On a CPU, round activations to int8 as well (a scale per group and token) where that is faster; false computes
   * with the dequantised weights exactly. Default true. On GPUs one sequence is decoded with activations rounded to 16 bits, groups of
   * 128 alone, to which false puts an end likewise. Of no effect in eager runs, which are exact.
   */
  activation_quantization?: boolean;
}

const pattern = kinds.named(
  'a name or a regular expression',
  (v) => (typeof v === 'string' && v !== '') || v instanceof RegExp,
);

const SHARED_RULES: OptionRules<WeightOnlyOptions> = {
  modules_to_not_convert: { kind: kinds.orNull(kinds.listOf(pattern, 'names and regular expressions')) },
  include_input_output_embeddings: { kind: kinds.boolean, default: false },
  scale_dtype: { kind: kinds.oneOf('auto', 'float32', 'bfloat16'), default: 'auto' },
};

const BITS = { why: 'the class says it: Int4WeightOnlyConfig has 4 bits, Int8WeightOnlyConfig has 8' };
const NF4 = { why: 'int4 and int8 weights are all there is, as torchao has them' };
/** Names of torchao, and of the other methods of transformers. */
const OTHERS: OtherNames = {
  groupsize: 'group_size',
  groupSize: 'group_size',
  block_size: 'group_size',
  q_group_size: 'group_size',
  skip_modules: 'modules_to_not_convert',
  llm_int8_skip_modules: 'modules_to_not_convert',
  modules_to_skip: 'modules_to_not_convert',
  bits: BITS,
  nbits: BITS,
  w_bit: BITS,
  load_in_4bit: { ...BITS, off: [false] },
  load_in_8bit: { ...BITS, off: [false] },
  quant_type: { why: "pass it first: new TorchAoConfig('int4_weight_only', { group_size: 128 })" },
  quant_method: { why: 'torchao is the one method', off: ['torchao'] },
  bnb_4bit_quant_type: NF4,
  bnb_4bit_compute_dtype: NF4,
  bnb_4bit_use_double_quant: { ...NF4, off: [false] },
  llm_int8_threshold: NF4,
  set_inductor_config: { why: 'which kernels run is chosen by the device', off: [true, false] },
  int4_packing_format: { why: 'files have the plain packing', off: ['plain', 'PLAIN'] },
  int4_choose_qparams_algorithm: { why: "rounding: 'search' looks for the least error", off: ['tinygemm', 'TINYGEMM'] },
  int4_tile_packed_ntile: { why: 'files have the plain packing', off: [8] },
  use_hqq: { why: "rounding: 'search' looks for the least error", off: [false] },
  layout: { why: 'files have the plain packing' },
  zero_point_domain: { why: 'zeros are floating-point' },
  preserve_zero: { why: 'zeros are floating-point', off: [null, false] },
  granularity: { why: 'int8 has a scale a row', off: [null] },
  version: { why: 'the form in config.json is that of version 2', off: [2] },
  untie_embedding_weights: { why: 'a tied head is quantised with its embedding', off: [false] },
};

const INT4_TABLE = new OptionTable<Int4WeightOnlyOptions>(
  'Int4WeightOnlyConfig',
  {
    ...SHARED_RULES,
    group_size: { kind: kinds.named(`one of ${GROUP_SIZES.join(', ')}`, kinds.oneOf(...GROUP_SIZES)), default: 128 },
    rounding: { kind: kinds.oneOf('minmax', 'search'), default: 'minmax' },
    activation_quantization: { kind: kinds.boolean, default: true },
  },
  { others: OTHERS, error: ConfigError },
);
const INT8_TABLE = new OptionTable<WeightOnlyOptions>('Int8WeightOnlyConfig', SHARED_RULES, {
  others: {
    ...OTHERS,
    groupsize: { why: 'int8 has a scale a row', off: [null] },
    group_size: { why: 'int8 has a scale a row', off: [null] },
    rounding: { why: 'int8 is rounded to the nearest' },
    activation_quantization: { why: 'int8 weights are multiplied as they are', off: [false] },
  },
  error: ConfigError,
});

abstract class WeightOnlyConfig {
  abstract readonly bits: 4 | 8;
  readonly modules_to_not_convert: readonly (string | RegExp)[];
  readonly include_input_output_embeddings: boolean;
  readonly scale_dtype: ScaleDtype;

  constructor(options: WeightOnlyOptions) {
    this.modules_to_not_convert = (options.modules_to_not_convert ?? []).map((s) =>
      s instanceof RegExp ? stateless(s) : s,
    );
    this.include_input_output_embeddings = options.include_input_output_embeddings ?? false;
    this.scale_dtype = options.scale_dtype ?? 'auto';
  }
}

/** The same matches of a name without a place to go on from: g alone says nothing here, y says that it begins the name. */
function stateless(pattern: RegExp): RegExp {
  const source = pattern.sticky ? `^(?:${pattern.source})` : pattern.source;
  return new RegExp(source, pattern.flags.replace(/[gy]/g, ''));
}

/**
 * Asymmetric int4: each group of input channels of a row has a scale and a zero, and 16 levels from its least to its
 * largest weight. Source: torchao Int4WeightOnlyConfig (plain packing, tinygemm's choice of parameters).
 *
 * @throws ConfigError for a group size that is not 32, 64, 128 or 256, and for unknown options
 * @example
 * const quantization_config = new Int4WeightOnlyConfig({ group_size: 128, include_input_output_embeddings: true });
 */
export class Int4WeightOnlyConfig extends WeightOnlyConfig {
  readonly bits = 4;
  readonly group_size: number;
  readonly rounding: Rounding;
  readonly activation_quantization: boolean;

  constructor(options: Int4WeightOnlyOptions = {}) {
    INT4_TABLE.check(options);
    super(options);
    this.group_size = options.group_size ?? 128;
    this.rounding = options.rounding ?? 'minmax';
    this.activation_quantization = options.activation_quantization ?? true;
  }
}

/**
 * Symmetric int8 with one scale a row. Source: torchao Int8WeightOnlyConfig, per row.
 * @example const quantization_config = new Int8WeightOnlyConfig();
 */
export class Int8WeightOnlyConfig extends WeightOnlyConfig {
  readonly bits = 8;

  constructor(options: WeightOnlyOptions = {}) {
    INT8_TABLE.check(options);
    super(options);
  }
}

/** Either kind. */
export type QuantizationConfig = Int4WeightOnlyConfig | Int8WeightOnlyConfig;

/** Names that the documentation of transformers gives to the two kinds. */
export type QuantType = 'int4_weight_only' | 'int8_weight_only';

/**
 * transformers' name for these configurations; holds one of the two in `quant_type`.
 * @param kind a configuration, or its name with its options
 * @throws ConfigError for a kind that is not supported
 * @example
 * const quantization_config = new TorchAoConfig('int4_weight_only', { group_size: 128 });
 */
export class TorchAoConfig {
  readonly quant_method = 'torchao';
  readonly quant_type: QuantizationConfig;

  constructor(kind: QuantType | QuantizationConfig, options: Int4WeightOnlyOptions = {}) {
    // names alone: what int8 takes of them its own configuration says
    INT4_TABLE.checkObject(options);
    for (const [name, value] of Object.entries(options)) INT4_TABLE.checkName(name, value);
    if (kind instanceof WeightOnlyConfig) {
      const [extra] = Object.keys(options);
      if (extra !== undefined)
        throw new ConfigError(
          `TorchAoConfig: ${plain(extra)} stands beside a configuration, which has its options already; pass it to ${kind.constructor.name}.`,
          { option: extra },
        );
      this.quant_type = kind;
    } else if (kind === 'int4_weight_only') this.quant_type = new Int4WeightOnlyConfig(options);
    else if (kind === 'int8_weight_only') this.quant_type = new Int8WeightOnlyConfig(options);
    else
      throw new ConfigError(
        `TorchAoConfig: quant_type is ${quote(kind)}; expected 'int4_weight_only', 'int8_weight_only', or a configuration of either.`,
        { option: 'quant_type', got: kind },
      );
  }

  to_dict(): Record<string, unknown> {
    return quantizationToDict(this.quant_type);
  }
}

/** The configuration itself, whichever way it was given. @throws ConfigError when it is none */
export function quantizationConfig(given: QuantizationConfig | TorchAoConfig): QuantizationConfig {
  if (given instanceof TorchAoConfig) return given.quant_type;
  if (given instanceof Int4WeightOnlyConfig || given instanceof Int8WeightOnlyConfig) return given;
  throw new ConfigError(
    'quantization_config: expected an Int4WeightOnlyConfig, an Int8WeightOnlyConfig or a TorchAoConfig.',
    { option: 'quantization_config', got: given },
  );
}

/**
 * `quantization_config` of config.json, in the form that transformers writes and reads. What transformers has no key
 * for is under `tfjs_mamba2`.
 */
export function quantizationToDict(config: QuantizationConfig): Record<string, unknown> {
  const own: Record<string, unknown> = { scale_dtype: config.scale_dtype };
  const regexps = config.modules_to_not_convert.flatMap((s) => (s instanceof RegExp ? [storedPattern(s)] : []));
  if (regexps.length > 0) own.patterns_to_not_convert = regexps;
  if (config instanceof Int4WeightOnlyConfig) {
    own.rounding = config.rounding;
    own.activation_quantization = config.activation_quantization;
  }
  const names = config.modules_to_not_convert.filter((s): s is string => typeof s === 'string');
  return {
    quant_method: 'torchao',
    quant_type: { default: config instanceof Int4WeightOnlyConfig ? int4Type(config) : INT8_TYPE },
    modules_to_not_convert: names.length > 0 ? names : null,
    include_input_output_embeddings: config.include_input_output_embeddings,
    untie_embedding_weights: false,
    tfjs_mamba2: own,
  };
}

/** A regular expression in config.json: its text, or text and flags. */
type StoredPattern = string | { source: string; flags: string };

function storedPattern({ source, flags }: RegExp): StoredPattern {
  return flags === '' ? source : { source, flags };
}

/** @returns null for what is no regular expression */
function readPattern(stored: unknown): RegExp | null {
  const { source, flags } = typeof stored === 'string' ? { source: stored, flags: '' } : dict(stored);
  if (typeof source !== 'string' || typeof flags !== 'string') return null;
  try {
    return new RegExp(source, flags);
  } catch {
    return null;
  }
}

function int4Type({ group_size }: Int4WeightOnlyConfig): Record<string, unknown> {
  return {
    _type: 'Int4WeightOnlyConfig',
    _version: 2,
    _data: {
      group_size,
      set_inductor_config: true,
      int4_packing_format: { _type: 'Int4PackingFormat', _data: 'PLAIN' },
      int4_choose_qparams_algorithm: { _type: 'Int4ChooseQParamsAlgorithm', _data: 'TINYGEMM' },
    },
  };
}

const INT8_TYPE = {
  _type: 'Int8WeightOnlyConfig',
  _version: 2,
  _data: {
    group_size: null,
    granularity: { _type: 'PerRow', _version: 1, _data: { dim: -1 } },
    set_inductor_config: true,
  },
};

type Dict = Record<string, unknown>;
const dict = (value: unknown): Dict => (typeof value === 'object' && value !== null ? (value as Dict) : {});

/**
 * Reads `quantization_config` of a config.json.
 * @param file where it is from, for messages
 * @throws ConfigError when it is of another method or of a packing other than plain
 */
export function quantizationFromDict(value: unknown, file = 'config.json'): QuantizationConfig {
  const record = dict(value);
  const fail = (what: string, got: unknown): never => {
    throw new ConfigError(
      `${file}: quantization_config ${what}. Supported: torchao's int4 (plain packing) and int8 weight-only.`,
      { file, option: 'quantization_config', got },
    );
  };
  if (record.quant_method !== 'torchao') fail(`has quant_method ${quote(record.quant_method)}`, record);
  const type = dict(dict(record.quant_type).default);
  const data = dict(type._data);
  const own = dict(record.tfjs_mamba2);
  const skip = Array.isArray(record.modules_to_not_convert) ? (record.modules_to_not_convert as string[]) : [];
  const patterns = Array.isArray(own.patterns_to_not_convert) ? (own.patterns_to_not_convert as unknown[]) : [];
  const shared = {
    modules_to_not_convert: [
      ...skip,
      ...patterns.map((p) => readPattern(p) ?? fail('has a pattern that is no regular expression', p)),
    ],
    include_input_output_embeddings: record.include_input_output_embeddings === true,
    ...(own.scale_dtype !== undefined && { scale_dtype: own.scale_dtype as ScaleDtype }),
  };
  switch (type._type) {
    case 'Int4WeightOnlyConfig': {
      const packing = dict(data.int4_packing_format)._data ?? 'PLAIN';
      if (typeof packing !== 'string' || packing.toUpperCase() !== 'PLAIN')
        fail(`has int4_packing_format ${quote(packing)}`, packing);
      return new Int4WeightOnlyConfig({
        ...shared,
        group_size: (data.group_size as number | undefined) ?? 128,
        ...(own.rounding !== undefined && { rounding: own.rounding as Rounding }),
        ...(own.activation_quantization !== undefined && {
          activation_quantization: own.activation_quantization as boolean,
        }),
      });
    }
    case 'Int8WeightOnlyConfig':
      if (data.group_size !== null && data.group_size !== undefined) fail('has int8 groups', data.group_size);
      return new Int8WeightOnlyConfig(shared);
    default:
      return fail(`has quant_type ${quote(type._type ?? record.quant_type)}`, record.quant_type);
  }
}
