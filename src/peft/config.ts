/** LoraConfig: the options of a low-rank adapter, in the keys of PEFT's adapter_config.json. */
import { ConfigError } from '../base/errors.js';
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
    `LoraConfig: ${key} is ${JSON.stringify(value)}, expected a list of module names or a regular expression`,
    { [key]: value },
  );
}

function positive(value: unknown, key: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value > 0) return value;
  throw new ConfigError(`LoraConfig: ${key} is ${JSON.stringify(value)}, expected a positive integer`, {
    [key]: value,
  });
}

function patternOf(value: unknown, key: string, check: (v: unknown, name: string) => number): Record<string, number> {
  const given = value ?? {};
  if (typeof given !== 'object' || Array.isArray(given)) {
    throw new ConfigError(
      `LoraConfig: ${key} is ${JSON.stringify(value)}, expected an object of module names and numbers`,
      { [key]: value },
    );
  }
  return Object.fromEntries(Object.entries(given).map(([name, v]) => [name, check(v, `${key}['${name}']`)]));
}

function finite(value: unknown, key: string): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new ConfigError(`LoraConfig: ${key} is ${JSON.stringify(value)}, expected a number`, { [key]: value });
}

/**
 * True when a module's full name is one of the names, ends with '.name', or matches the whole regular expression. 'all-linear' is every
 * projection within a block.
 * @param role of the module's matrix, where it has one
 */
export function matchesModule(module: string, wanted: readonly string[] | string, role?: WeightRole): boolean {
  if (typeof wanted !== 'string') return wanted.some((name) => module === name || module.endsWith(`.${name}`));
  if (wanted === 'all-linear') return role === 'projection';
  try {
    return new RegExp(`^(?:${wanted})$`).test(module);
  } catch (error) {
    throw new ConfigError(
      `LoraConfig: '${wanted}' is not a regular expression: ${(error as Error).message}`,
      { pattern: wanted },
      { cause: error },
    );
  }
}

/** The number after the first part of a module's name that matches. @param inside whether something must stand before that part */
function layerNumber(pattern: string, module: string, inside: boolean): number | undefined {
  try {
    const found = new RegExp(`${inside ? '^.*?\\.' : '^(?:|.*?\\.)'}${pattern}\\.(?<layer>\\d+)\\.`).exec(module);
    return found ? Number(found.groups!['layer']) : undefined;
  } catch (error) {
    throw new ConfigError(
      `LoraConfig: layers_pattern '${pattern}' is not a regular expression: ${(error as Error).message}`,
      { layers_pattern: pattern },
      { cause: error },
    );
  }
}

function fromPattern(pattern: Readonly<Record<string, number>>, module: string, otherwise: number): number {
  const key = Object.keys(pattern).find((k) => new RegExp(`^(?:.*\\.)?(?:${k})$`).test(module));
  return key === undefined ? otherwise : pattern[key]!;
}

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

  constructor(fields: Partial<LoraConfigFields> & Readonly<Record<string, unknown>> = {}) {
    const type = fields['peft_type'];
    if (type !== undefined && type !== 'LORA') {
      throw new ConfigError(
        `adapter_config.json: peft_type is ${JSON.stringify(type)}; only 'LORA' adapters are supported`,
        { peft_type: type },
      );
    }
    for (const [key, refused] of Object.entries(REFUSED)) {
      if (refused(fields[key])) {
        throw new ConfigError(
          `LoraConfig: ${key} is ${JSON.stringify(fields[key])}, which this package does not support; train the adapter without it`,
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
      throw new ConfigError(
        `LoraConfig: init_lora_weights is ${JSON.stringify(init)}, expected true, false or 'gaussian'`,
        { init_lora_weights: init },
      );
    }
    this.init_lora_weights = init;
    this.base_model_name_or_path = fields.base_model_name_or_path ?? null;
    const known = new Set([...Object.keys(this), 'extra']);
    this.extra = Object.fromEntries(Object.entries(fields).filter(([key]) => !known.has(key)));
  }

  /** The rank of one module. */
  rank(module: string): number {
    return fromPattern(this.rank_pattern, module, this.r);
  }

  /** The factor of the product B·A of one module: alpha/r, or alpha/sqrt(r) with use_rslora. */
  scale(module: string): number {
    const rank = this.rank(module);
    return fromPattern(this.alpha_pattern, module, this.lora_alpha) / (this.use_rslora ? Math.sqrt(rank) : rank);
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
