/** LoraConfig: the options of a low-rank adapter, in the keys of PEFT's adapter_config.json. */
import { ConfigError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import { Pattern } from '../base/pattern.js';
import { quote } from '../base/quote.js';
import type { WeightRole } from '../layers/index.js';

/** The keys that this package acts on; all optional when given by a user. */
export interface LoraConfigFields {
  /** Rank. Default 8. */
  r: number;
  /** The adapter's product is scaled by lora_alpha / r. Default 8. */
  lora_alpha: number;
  /** Share of the adapter's inputs that training sets to zero; linear maps only, as in PEFT. Default 0. */
  lora_dropout: number;
  /** Names of modules ('in_proj', 'embeddings', 'out_proj', 'lm_head'; matched at the end of the full name), or a regular expression for the whole name. Default ['in_proj']. */
  target_modules: readonly string[] | string;
  /** As target_modules: those that are left out after all. Default none. */
  exclude_modules: readonly string[] | string | null;
  /** Blocks that are adapted. Default all. */
  layers_to_transform: readonly number[] | number | null;
  /** With layers_to_transform: what comes before a block's number in module names, as a regular expression or several. Default: any name. */
  layers_pattern: readonly string[] | string | null;
  /**
   * Modules trained whole and stored with the adapter, for example ['lm_head', 'norm_f']. Default none. 'embeddings' is the
   * lookup alone: a head tied to it keeps the base's matrix.
   */
  modules_to_save: readonly string[] | null;
  /** Scale by lora_alpha / sqrt(r) instead. Default false. */
  use_rslora: boolean;
  /** Ranks of single modules, by the end of their name or a regular expression. */
  rank_pattern: Readonly<Record<string, number>>;
  /** lora_alpha of single modules, in the same way. */
  alpha_pattern: Readonly<Record<string, number>>;
  /** true: A uniform as PyTorch's Linear, B zero; 'gaussian': A normal with deviation 1/r, B zero; false: both random. Default true. */
  init_lora_weights: boolean | 'gaussian';
  /** Folder or name of the base model, for the record. */
  base_model_name_or_path: string | null;
}

/** Keys of PEFT that say what the configuration is, and change nothing here. */
export interface LoraConfigNotes {
  /** A language model is what there is. */
  task_type?: 'CAUSAL_LM' | null;
  peft_type?: 'LORA';
  /** Biases are not trained. */
  bias?: 'none';
  /** Weights lie as PyTorch's Linear has them. */
  fan_in_fan_out?: false;
  inference_mode?: boolean;
  /** Of the base model, for the record. */
  revision?: string | null;
  peft_version?: string | null;
  auto_mapping?: unknown;
  /** Kept for PEFT: a head tied to an embedding follows it there. */
  ensure_weight_tying?: boolean;
}

const names = kinds.either(kinds.text, kinds.listOf(kinds.text, 'names of modules', 1));
const flag = { kind: kinds.boolean, default: false };

/** What new LoraConfig() takes. Values are checked by the constructor, which also reads files. */
const LORA_TABLE = new OptionTable<Partial<LoraConfigFields> & LoraConfigNotes>(
  'new LoraConfig()',
  {
    r: { kind: kinds.integer({ min: 1 }), default: 8 },
    lora_alpha: { kind: kinds.number(), default: 8 },
    lora_dropout: { kind: kinds.number({ min: 0, below: 1 }), default: 0 },
    target_modules: { kind: names, default: ['in_proj'] },
    exclude_modules: { kind: kinds.orNull(names) },
    layers_to_transform: {
      kind: kinds.orNull(kinds.either(kinds.integer(), kinds.listOf(kinds.integer(), 'numbers of blocks'))),
    },
    layers_pattern: { kind: kinds.orNull(names) },
    modules_to_save: { kind: kinds.orNull(kinds.listOf(kinds.text, 'names of modules', 1)) },
    use_rslora: flag,
    rank_pattern: { kind: kinds.recordOf(kinds.integer({ min: 1 }), 'an object of module names and ranks') },
    alpha_pattern: { kind: kinds.recordOf(kinds.number(), 'an object of module names and numbers') },
    init_lora_weights: { kind: kinds.oneOf(true, false, 'gaussian'), default: true },
    base_model_name_or_path: { kind: kinds.orNull(kinds.anyText) },
    task_type: { kind: kinds.orNull(kinds.oneOf('CAUSAL_LM')) },
    peft_type: { kind: kinds.oneOf('LORA') },
    bias: { kind: kinds.oneOf('none'), default: 'none' },
    fan_in_fan_out: { kind: kinds.oneOf(false) },
    inference_mode: flag,
    revision: { kind: kinds.orNull(kinds.anyText) },
    peft_version: { kind: kinds.orNull(kinds.anyText) },
    auto_mapping: { kind: kinds.anything },
    ensure_weight_tying: flag,
  },
  {
    error: ConfigError,
    others: {
      rank: 'r',
      lora_r: 'r',
      alpha: 'lora_alpha',
      dropout: 'lora_dropout',
      target_module: 'target_modules',
      layers: 'layers_to_transform',
      init_weights: 'init_lora_weights',
      ...Object.fromEntries(
        ['megatron_config', 'loftq_config', 'eva_config', 'corda_config', 'lora_ga_config', 'kasa_config'].map(
          (name) => [name, { why: 'this package does not have it; train the adapter without it', off: [null] }],
        ),
      ),
    },
  },
);

/** Features of PEFT that change the numbers and that this package does not have: set, they are refused. */
const REFUSED: Readonly<Record<string, (value: unknown) => boolean>> = {
  use_dora: (v) => v === true,
  use_qalora: (v) => v === true,
  use_bdlora: (v) => v !== null && v !== undefined && v !== false,
  lora_bias: (v) => v === true,
  bias: (v) => v !== undefined && v !== 'none',
  fan_in_fan_out: (v) => v === true,
  layer_replication: (v) => v !== null && v !== undefined,
  target_parameters: (v) => Array.isArray(v) && v.length > 0,
  trainable_token_indices: (v) => v !== null && v !== undefined,
  alora_invocation_tokens: (v) => v !== null && v !== undefined,
  arrow_config: (v) => v !== null && v !== undefined,
  monteclora_config: (v) => v !== null && v !== undefined,
  velora_config: (v) => v !== null && v !== undefined,
};

function checkedList(value: unknown, key: string): readonly string[] | string {
  if (typeof value === 'string' && value !== '') return value;
  if (Array.isArray(value) && value.length > 0 && value.every((v) => typeof v === 'string' && v !== ''))
    return value as string[];
  throw new ConfigError(
    `LoraConfig: ${key} is ${quote(value)}, expected a list of module names or a regular expression`,
    { [key]: value },
  );
}

function positive(value: unknown, key: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value > 0) return value;
  throw new ConfigError(`LoraConfig: ${key} is ${quote(value)}, expected a positive integer`, {
    [key]: value,
  });
}

function patternOf(value: unknown, key: string, check: (v: unknown, name: string) => number): Record<string, number> {
  const given = value ?? {};
  if (typeof given !== 'object' || Array.isArray(given)) {
    throw new ConfigError(`LoraConfig: ${key} is ${quote(value)}, expected an object of module names and numbers`, {
      [key]: value,
    });
  }
  return Object.fromEntries(Object.entries(given).map(([name, v]) => [name, check(v, `${key}['${name}']`)]));
}

function finite(value: unknown, key: string): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new ConfigError(`LoraConfig: ${key} is ${quote(value)}, expected a number`, { [key]: value });
}

/**
 * True when a module's full name is one of the names, ends with '.name', or matches the whole regular expression. 'all-linear' is every
 * projection within a block.
 * @param role of the module's matrix, where it has one
 */
export function matchesModule(module: string, wanted: readonly string[] | string, role?: WeightRole): boolean {
  if (typeof wanted !== 'string') return wanted.some((name) => module === name || module.endsWith(`.${name}`));
  if (wanted === 'all-linear') return role === 'projection';
  return patternOfNames(`^(?:${wanted})$`, 'target_modules').test(module);
}

/** An expression of a file or of a user, whose matching takes no longer for being a bad one. @throws ConfigError when it is none */
function patternOfNames(source: string, key: string): Pattern {
  return new Pattern(source, `LoraConfig: ${key}`, ConfigError);
}

/** The number after the first part of a module's name that matches. @param inside whether something must stand before that part */
function layerNumber(pattern: string, module: string, inside: boolean): number | undefined {
  const source = `${inside ? '^.*?\\.' : '^(?:|.*?\\.)'}${pattern}\\.(?P<layer>\\d+)\\.`;
  const layer = patternOfNames(source, 'layers_pattern').find(module)?.group('layer');
  return layer === undefined ? undefined : Number(layer);
}

function fromPattern(
  pattern: Readonly<Record<string, number>>,
  key: string,
  module: string,
  otherwise: number,
): number {
  const found = Object.keys(pattern).find((k) => patternOfNames(`^(?:.*\\.)?(?:${k})$`, key).test(module));
  return found === undefined ? otherwise : pattern[found]!;
}

/** Keys of a file, among which may be notes of its writer. */
class FileFields {}

/**
 * Options of a LoRA adapter. Names and defaults are those of PEFT's LoraConfig, except that target_modules has a
 * default. Keys that PEFT writes and that change nothing here are kept and written back.
 *
 * @throws ConfigError for values out of range, and for features of PEFT that this package does not have
 * @example
 * const config = new LoraConfig({ r: 8, lora_alpha: 16, target_modules: ['in_proj', 'embeddings'] });
 */
export class LoraConfig {
  readonly r: number;
  readonly lora_alpha: number;
  readonly lora_dropout: number;
  readonly target_modules: readonly string[] | string;
  readonly exclude_modules: readonly string[] | string | null;
  readonly layers_to_transform: readonly number[] | null;
  readonly layers_pattern: readonly string[] | string | null;
  readonly modules_to_save: readonly string[] | null;
  readonly use_rslora: boolean;
  readonly rank_pattern: Readonly<Record<string, number>>;
  readonly alpha_pattern: Readonly<Record<string, number>>;
  readonly init_lora_weights: boolean | 'gaussian';
  readonly base_model_name_or_path: string | null;
  private readonly extra: Readonly<Record<string, unknown>>;

  constructor(options: Partial<LoraConfigFields> & LoraConfigNotes = {}) {
    LORA_TABLE.checkObject(options);
    if (!(options instanceof FileFields))
      for (const [name, value] of Object.entries(options))
        if (!Object.hasOwn(REFUSED, name)) LORA_TABLE.checkName(name, value);
    const fields: Partial<LoraConfigFields> & Readonly<Record<string, unknown>> = { ...options };
    const type = fields['peft_type'];
    if (type !== undefined && type !== 'LORA') {
      throw new ConfigError(`adapter_config.json: peft_type is ${quote(type)}; only 'LORA' adapters are supported`, {
        peft_type: type,
      });
    }
    for (const [key, refused] of Object.entries(REFUSED)) {
      if (refused(fields[key])) {
        throw new ConfigError(
          `LoraConfig: ${key} is ${quote(fields[key])}, which this package does not support; train the adapter without it`,
          {
            [key]: fields[key],
          },
        );
      }
    }
    this.r = positive(fields.r ?? 8, 'r');
    this.lora_alpha = finite(fields.lora_alpha ?? 8, 'lora_alpha');
    this.lora_dropout = finite(fields.lora_dropout ?? 0, 'lora_dropout');
    if (!(this.lora_dropout >= 0 && this.lora_dropout < 1)) {
      throw new ConfigError(`LoraConfig: lora_dropout is ${this.lora_dropout}, expected a number in [0, 1)`, {
        lora_dropout: this.lora_dropout,
      });
    }
    this.target_modules = checkedList(fields.target_modules ?? ['in_proj'], 'target_modules');
    this.exclude_modules =
      fields.exclude_modules == null ? null : checkedList(fields.exclude_modules, 'exclude_modules');
    const layers = fields.layers_to_transform ?? null;
    this.layers_to_transform = typeof layers === 'number' ? [layers] : layers;
    this.layers_pattern = fields.layers_pattern ?? null;
    this.checkLayers();
    this.modules_to_save =
      fields.modules_to_save == null ? null : (checkedList(fields.modules_to_save, 'modules_to_save') as string[]);
    if (typeof this.modules_to_save === 'string')
      throw new ConfigError('LoraConfig: modules_to_save must be a list of module names', {});
    this.use_rslora = fields.use_rslora ?? false;
    this.rank_pattern = patternOf(fields.rank_pattern, 'rank_pattern', positive);
    this.alpha_pattern = patternOf(fields.alpha_pattern, 'alpha_pattern', finite);
    const init = fields.init_lora_weights ?? true;
    if (typeof init !== 'boolean' && init !== 'gaussian') {
      throw new ConfigError(`LoraConfig: init_lora_weights is ${quote(init)}, expected true, false or 'gaussian'`, {
        init_lora_weights: init,
      });
    }
    this.init_lora_weights = init;
    this.base_model_name_or_path = fields.base_model_name_or_path ?? null;
    const known = new Set([...Object.keys(this), 'extra']);
    this.extra = Object.fromEntries(Object.entries(fields).filter(([key]) => !known.has(key)));
  }

  /**
   * The configuration that an adapter_config.json holds. Unlike the constructor it keeps keys that it does not know.
   * @throws ConfigError as the constructor, but for unknown keys
   * @example
   * const config = LoraConfig.from_dict({ r: 4, target_modules: ['in_proj'], note: 'of a writer' });
   */
  static from_dict(values: Readonly<Record<string, unknown>>): LoraConfig {
    return new LoraConfig(Object.assign(new FileFields(), values));
  }

  /** The rank of one module. */
  rank(module: string): number {
    return fromPattern(this.rank_pattern, 'rank_pattern', module, this.r);
  }

  /** The factor of the product B·A of one module: alpha/r, or alpha/sqrt(r) with use_rslora. */
  scale(module: string): number {
    const rank = this.rank(module);
    return (
      fromPattern(this.alpha_pattern, 'alpha_pattern', module, this.lora_alpha) /
      (this.use_rslora ? Math.sqrt(rank) : rank)
    );
  }

  /** Whether modules_to_save names a module, or one that holds it. */
  trainsWhole(module: string): boolean {
    const path = module.split('.');
    return path.some((_, i) => matchesModule(path.slice(0, i + 1).join('.'), this.modules_to_save ?? []));
  }

  /** Whether a module is to be adapted; as in PEFT, none that is trained whole. @param role of its matrix, where it has one */
  targets(module: string, role?: WeightRole): boolean {
    if (this.exclude_modules && matchesModule(module, this.exclude_modules, role)) return false;
    if (this.trainsWhole(module)) return false;
    if (!matchesModule(module, this.target_modules, role)) return false;
    // a module that is named in full is wanted wherever it is
    if (!this.layers_to_transform?.length || this.target_modules.includes(module)) return true;
    const { layers_pattern: pattern } = this;
    const names = pattern?.length ? [pattern].flat() : ['[^.]*'];
    const found = names.map((name) => layerNumber(name, module, !pattern?.length)).find((n) => n !== undefined);
    return found !== undefined && this.layers_to_transform.includes(found);
  }

  /** As PEFT does: a regular expression for whole names says itself which blocks are meant. */
  private checkLayers(): void {
    const { layers_to_transform: layers, layers_pattern: pattern, target_modules: targets } = this;
    const refuse = (key: string, why: string): never => {
      throw new ConfigError(`LoraConfig: ${key} cannot be used ${why}`, { [key]: fields[key] });
    };
    const fields: Readonly<Record<string, unknown>> = { layers_to_transform: layers, layers_pattern: pattern };
    const expression = typeof targets === 'string' && targets !== 'all-linear';
    if (layers && expression) refuse('layers_to_transform', 'when target_modules is a regular expression');
    if (pattern && !layers) refuse('layers_pattern', 'without layers_to_transform');
    for (const name of pattern ? [pattern].flat() : []) layerNumber(name, '', false);
  }

  /** The content of adapter_config.json. */
  to_dict(): Record<string, unknown> {
    const fields: Record<string, unknown> = Object.fromEntries(Object.entries(this).filter(([key]) => key !== 'extra'));
    const defaults = { bias: 'none', fan_in_fan_out: false, task_type: 'CAUSAL_LM', use_dora: false };
    return { ...defaults, ...this.extra, ...fields, peft_type: 'LORA', inference_mode: true };
  }
}
