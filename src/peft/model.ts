/** PeftModel: a causal language model whose weights stay as they are, with adapters on top. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError } from '../base/errors.js';
import type { IdsLike } from '../generation/ids.js';
import type { GenerateInputs, GenerateOutput, RowsAlone, WholeOutput } from '../generation/index.js';
import { freshSeed } from '../generation/random.js';
import { type GenerationWarmupOptions, MODEL_WARMUP_TABLE } from '../generation/warmup.js';
import { isStored, type StoredMatrix, type Weight, type Weights } from '../layers/index.js';
import type { CausalLM } from '../models/causal_lm.js';
import { FORWARD_TABLE } from '../models/forward_options.js';
import { type EncodedIds, checkedArguments, type GenerateOptions } from '../models/generate_arguments.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import { LoraAdapter } from './adapter.js';
import { composeWeights, type PrefixedAdapter } from './compose.js';
import { LoraConfig, type LoraConfigFields, type LoraConfigNotes } from './config.js';
import { tiedPair } from './matrix.js';
import { type MergedWeights, mergedWeights } from './merge.js';

export interface PeftOptions {
  /** Default 'default'. Of a folder with several adapters: the one to read. */
  adapter_name?: string;
  /** Of the fresh factors. Default: a new one each time. */
  seed?: number;
  /** Called with things worth knowing, such as an adapter that PEFT would not load. */
  on_warning?: (message: string) => void;
}

const PEFT_RULES: OptionRules<PeftOptions> = {
  adapter_name: { kind: kinds.text },
  seed: { kind: kinds.integer({ min: 0 }) },
  on_warning: { kind: kinds.func },
};
const PEFT_OTHERS: OtherNames = {
  autocast_adapter_dtype: { why: 'adapters are always float32', off: [true] },
  mixed: { why: 'several adapters add up: add_adapter and set_adapter', off: [false] },
  low_cpu_mem_usage: { why: 'an adapter is read once', off: [false, true] },
  is_trainable: { why: 'adapters that are read can be trained', off: [false, true] },
  ephemeral_gpu_offload: { why: 'adapters stay on their device', off: [false] },
  onWarning: 'on_warning',
};
const GET_TABLE = new OptionTable<PeftOptions>('get_peft_model()', PEFT_RULES, { others: PEFT_OTHERS });
export const LOAD_TABLE = new OptionTable<PeftOptions>('load_peft_model()', PEFT_RULES, { others: PEFT_OTHERS });

/** Options of add_adapter. */
export interface AddAdapterOptions {
  /** Of the fresh factors. Default: a new one each time. */
  seed?: number;
  /** Values of the adapter's tensors; what is missing is fresh. */
  values?: AdapterValues;
}
const ADD_TABLE = new OptionTable<AddAdapterOptions>('add_adapter()', {
  seed: { kind: kinds.integer({ min: 0 }) },
  values: { kind: kinds.having('a Map of values', 'get', 'has') },
});

/** Options of merge_adapter. */
export interface MergeOptions {
  /** Refuse when a merged weight has a value that is not finite. Default false. */
  safe_merge?: boolean;
}
const MERGE_TABLE = new OptionTable<MergeOptions>(
  'merge_adapter()',
  { safe_merge: { kind: kinds.boolean, default: false } },
  { others: { adapter_names: { why: 'choose them with set_adapter', off: [null] } } },
);

/** What PEFT refuses to load (_check_lora_target_modules_mamba), and this package takes all the same. */
const PEFT_REFUSES = {
  model_types: ['mamba', 'mamba2', 'falcon_mamba', 'falcon_h1'],
  module: 'out_proj',
};

/** Values of an adapter as read from a file. */
export type AdapterValues = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>;

/**
 * A model with adapters. The base weights never change, except while merged. Make one with `get_peft_model`, or read
 * adapters from a folder with `load_adapter` (peft/files).
 *
 * The base model is shared, not copied: its own forward() sees the active adapters too.
 * @typeParam M the base model's class
 */
export class PeftModel<M extends CausalLM = CausalLM> {
  private readonly adapters = new Map<string, LoraAdapter>();
  private active: string[] = [];
  private enabled = true;
  private merged: { name: string; before: tf.Tensor }[] | null = null;
  private untied: tf.Variable | null = null;
  /** Weights of the base that an adapter's file replaces, and the base's own. */
  private readonly replaced = new Map<string, { variable: tf.Variable; own: Weight }>();
  private disposed = false;
  /** The base's weights before any adapter. */
  private readonly base: Record<string, Weight>;

  constructor(
    readonly base_model: M,
    private readonly onWarning: (message: string) => void = () => undefined,
  ) {
    this.base = { ...base_model.weights.all() };
  }

  get config(): M['config'] {
    return this.base_model.config;
  }

  private get network(): M['network'] {
    return this.base_model.network;
  }

  /** Configurations of all adapters by name. */
  get peft_config(): Readonly<Record<string, LoraConfig>> {
    return Object.fromEntries([...this.adapters].map(([name, { config }]) => [name, config]));
  }

  /** Adapters that act now; none while disabled. */
  get active_adapters(): readonly string[] {
    return this.enabled ? this.active : [];
  }

  /** Adapters that act when enabled. */
  get selected_adapters(): readonly string[] {
    return this.active;
  }

  /** An adapter by name. @throws ArgumentError when there is none */
  adapter(name: string): LoraAdapter {
    if (this.disposed) throw new DisposedError('This PeftModel was disposed');
    const found = this.adapters.get(name);
    if (!found)
      throw new ArgumentError(
        `There is no adapter '${name}'; there are: ${[...this.adapters.keys()].join(', ') || 'none'}`,
        { name },
      );
    return found;
  }

  /**
   * Adds an adapter; the first one becomes active.
   * @throws ArgumentError for a name that is taken or modules that cannot be adapted, ConfigError for values that do not fit
   */
  add_adapter(name: string, config: LoraConfig, options: AddAdapterOptions = {}): void {
    ADD_TABLE.check(options);
    this.refuseMerged('add an adapter');
    if (this.adapters.has(name))
      throw new ArgumentError(
        `There is an adapter '${name}' already; delete_adapter('${name}') or choose another name`,
        { name },
      );
    const adapter = new LoraAdapter(config, this.base, this.network, options.seed ?? freshSeed(), options.values);
    const { model_type } = this.config;
    const refused = adapter.modules.some(({ module }) => module.endsWith(`.${PEFT_REFUSES.module}`));
    if (refused && PEFT_REFUSES.model_types.includes(model_type)) {
      this.onWarning(
        `Adapter '${name}' acts on ${PEFT_REFUSES.module}: it works here, but PEFT refuses such adapters for ${model_type} models. Merge it (merge_and_unload) to use the result in transformers.`,
      );
    }
    this.adapters.set(name, adapter);
    if (this.active.length === 0) this.active = [name];
    this.install();
  }

  /**
   * Puts another matrix in the place of one of the base's, for as long as this PeftModel lives: what an adapter's file holds
   * beside the adapter, as PEFT loads it. @internal
   */
  replaceBase(name: string, values: Float32Array): void {
    this.refuseMerged('load an adapter');
    const own = this.replaced.get(name)?.own ?? this.base[name]!;
    const variable = tf.tidy(() => tf.variable(tf.tensor(values, [...own.shape]), false));
    this.replaced.get(name)?.variable.dispose();
    this.replaced.set(name, { variable, own });
    this.base[name] = variable;
    this.install();
  }

  /** Weights that replaceBase() put in the place of the base's. @internal */
  replaced_weights(): Map<string, tf.Variable> {
    return new Map([...this.replaced].map(([name, { variable }]) => [name, variable]));
  }

  /** The form that stands in for one of the model's own weights while no adapter changes it; null for none. */
  private standing(name: string): StoredMatrix | null {
    const weight = this.base[name]!;
    return isStored(weight) || this.replaced.has(name) ? (weight as StoredMatrix) : null;
  }

  /** Chooses which adapters act; several add up. @throws ArgumentError for an unknown name */
  set_adapter(names: string | readonly string[]): void {
    this.refuseMerged('change the active adapter');
    const list = typeof names === 'string' ? [names] : [...names];
    list.forEach((name) => this.adapter(name));
    this.active = list;
    this.install();
  }

  delete_adapter(name: string): void {
    this.refuseMerged('delete an adapter');
    const adapter = this.adapter(name);
    this.adapters.delete(name);
    this.active = this.active.filter((other) => other !== name);
    this.install();
    adapter.dispose();
  }

  /** The base model alone, until enable_adapter_layers(). */
  disable_adapter_layers(): void {
    this.refuseMerged('disable adapters');
    this.enabled = false;
    this.install();
  }

  enable_adapter_layers(): void {
    this.enabled = true;
    if (!this.merged) this.install();
  }

  /** Runs `work` with all adapters disabled. */
  async with_adapters_disabled<T>(work: () => T | Promise<T>): Promise<T> {
    const before = this.enabled;
    this.disable_adapter_layers();
    try {
      return await work();
    } finally {
      this.enabled = before;
      this.install();
    }
  }

  /**
   * Trainable variables of the active adapters, by PEFT's keys without prefix; several adapters prefix theirs with their name.
   * @throws ArgumentError while adapters are merged: the network does not read them then
   */
  trainable(): Map<string, tf.Variable> {
    this.refuseMerged('train or evaluate adapters');
    return this.variables();
  }

  /** The weight of the network that each of trainable() acts on, or is. */
  targets(): Map<string, string> {
    const entries = this.acting().flatMap(({ prefix, adapter }) =>
      [...adapter.variables.keys()].map((key) => [prefix + key, adapter.weightOf(key)] as const),
    );
    return new Map(entries);
  }

  /** The adapters that act. */
  private acting(): PrefixedAdapter[] {
    return this.active_adapters.map((name) => ({
      prefix: this.active.length > 1 ? `${name}:` : '',
      adapter: this.adapter(name),
    }));
  }

  private variables(): Map<string, tf.Variable> {
    const entries = this.acting().flatMap(({ prefix, adapter }) =>
      [...adapter.variables].map(([key, variable]) => [prefix + key, variable] as const),
    );
    return new Map(entries);
  }

  /** The base's weights, which training leaves alone. While adapters are merged, these have them in. */
  frozen(): Weights {
    return this.base;
  }

  /**
   * All weights of the network over given tensors: the one place where base and adapters are put together. Pure, so a
   * compiled program calls it with its own tensors.
   * @param trainable tensors under the keys of trainable() @param frozen the base's weights @param seed for dropout, int32 [2]
   * @throws ArgumentError while adapters are merged: they would count twice
   */
  compose(trainable: Readonly<Record<string, tf.Tensor>>, frozen: Weights, seed?: tf.Tensor1D): Weights {
    this.refuseMerged('train or evaluate adapters');
    return composeWeights(this.network, this.acting(), trainable, frozen, seed);
  }

  /** Puts the active adapters into the base model's weights. */
  private install(): void {
    const { weights } = this.base_model;
    const composed = this.compose(Object.fromEntries(this.variables()), this.base);
    for (const [name, weight] of Object.entries(composed)) {
      const changed = weight !== this.base[name];
      weights.store(name, changed ? (weight as StoredMatrix) : this.standing(name));
    }
  }

  /** @returns numbers of trainable and of all parameters */
  get_nb_trainable_parameters(): { trainable: number; all: number } {
    const sum = (shapes: (readonly number[])[]): number =>
      shapes.reduce((total, shape) => total + shape.reduce((a, b) => a * b, 1), 0);
    const trainable = sum([...this.variables().values()].map((v) => v.shape));
    return { trainable, all: trainable + sum(Object.values(this.base).map((w) => w.shape)) };
  }

  /** As the model's forward(), with the active adapters. */
  forward(inputs: Parameters<M['forward']>[0]): ReturnType<M['forward']> {
    FORWARD_TABLE.checkObject(inputs);
    FORWARD_TABLE.check(inputs);
    if (this.disposed) throw new DisposedError('This PeftModel was disposed');
    return this.base_model.forward(inputs) as ReturnType<M['forward']>;
  }

  /**
   * As the model's forwardAsync(), with the active adapters.
   * @throws as forward(); DisposedError where this PeftModel or its base is disposed of meanwhile
   * @example
   * const peft = get_peft_model(model, { r: 8, lora_alpha: 16, target_modules: ['in_proj'] });
   * const { logits } = await peft.forwardAsync({ input_ids: [[1, 2, 3]], use_cache: false });
   */
  async forwardAsync(inputs: Parameters<M['forward']>[0]): Promise<ReturnType<M['forward']>> {
    FORWARD_TABLE.checkObject(inputs);
    FORWARD_TABLE.check(inputs);
    this.alive();
    try {
      return (await this.base_model.forwardAsync(inputs)) as ReturnType<M['forward']>;
    } catch (error) {
      this.alive(); // the tensors of an adapter that is gone fail in their own words
      throw error;
    }
  }

  /** As the model's generate(), with the active adapters. */
  generate(inputs: GenerateInputs & WholeOutput): Promise<GenerateOutput>;
  generate(inputs: GenerateInputs & RowsAlone): Promise<number[][]>;
  generate(input_ids: IdsLike | EncodedIds, options: GenerateOptions & WholeOutput): Promise<GenerateOutput>;
  generate(input_ids: IdsLike | EncodedIds, options?: GenerateOptions & RowsAlone): Promise<number[][]>;
  generate(inputs: GenerateInputs): Promise<number[][] | GenerateOutput>;
  generate(input_ids: IdsLike | EncodedIds, options: GenerateOptions): Promise<number[][] | GenerateOutput>;
  async generate(
    first: GenerateInputs | IdsLike | EncodedIds,
    options?: GenerateOptions,
  ): Promise<number[][] | GenerateOutput> {
    const inputs = checkedArguments(first, options);
    if (this.disposed) throw new DisposedError('This PeftModel was disposed');
    return this.base_model.generate(inputs);
  }

  /** As the model's warmup(), with the active adapters. */
  async warmup(options: GenerationWarmupOptions = {}): Promise<void> {
    MODEL_WARMUP_TABLE.check(options);
    if (this.disposed) throw new DisposedError('This PeftModel was disposed');
    return this.base_model.warmup(options);
  }

  private alive(): void {
    if (this.disposed) throw new DisposedError('This PeftModel was disposed');
  }

  private refuseMerged(what: string): void {
    this.alive();
    if (this.merged)
      throw new ArgumentError(`Cannot ${what} while adapters are merged; call unmerge_adapter() first`, {});
  }

  private mergedWeights(): MergedWeights {
    return mergedWeights(
      this.network,
      this.base,
      this.active_adapters.map((name) => this.adapter(name)),
    );
  }

  /**
   * Adds the active adapters to the base weights in place: the same outputs at the base model's speed. Undone by
   * unmerge_adapter(), bit for bit (the weights from before are kept).
   */
  merge_adapter(options: MergeOptions = {}): void {
    MERGE_TABLE.check(options);
    this.refuseMerged('merge');
    const { changed, untied, head } = this.mergedWeights();
    try {
      if (options.safe_merge) {
        for (const [name, tensor] of [...changed, ...(head ? [[this.network.names.head, head] as const] : [])]) {
          const finite = tf.tidy(() => tf.all(tf.isFinite(tensor)).dataSync()[0]);
          if (!finite)
            throw new ArgumentError(
              `merge_adapter: '${name}' would hold values that are not finite; the adapter is broken`,
              { name },
            );
        }
      }
      const { weights } = this.base_model;
      const { embedding } = this.network.names;
      if (untied)
        this.untied = tf.tidy(() => tf.variable(tf.clone(head ?? (this.base[embedding] as tf.Tensor)), false));
      this.merged = [...changed].map(([name, tensor]) => {
        const variable = this.base[name] as tf.Variable;
        const before = tf.clone(variable);
        variable.assign(tensor);
        weights.store(name, this.standing(name));
        return { name, before };
      });
      if (this.untied) {
        // adapters of an embedding act on the lookup alone: a tied head goes on with the matrix from before
        weights.store(embedding, tiedPair(this.base[embedding] as tf.Tensor2D, this.untied));
      }
    } finally {
      for (const tensor of changed.values()) tensor.dispose();
      head?.dispose();
    }
  }

  /** Takes merged adapters out again. */
  unmerge_adapter(): void {
    if (!this.merged) throw new ArgumentError('unmerge_adapter: nothing is merged', {});
    for (const { name, before } of this.merged) {
      (this.base[name] as tf.Variable).assign(before);
      before.dispose();
    }
    this.merged = null;
    this.untied?.dispose();
    this.untied = null;
    this.install();
  }

  /**
   * A model of its own with the active adapters merged into its weights. When the head is tied and an adapter acts on
   * the embedding or trains it whole, its head is stored apart (tie_word_embeddings false): the lookup alone is changed.
   * The PeftModel stays usable.
   * @example
   * const merged = peft.merge_and_unload();
   * await merged.save_pretrained('merged'); // loads in transformers
   */
  merge_and_unload(): ReturnType<M['fresh']> {
    this.refuseMerged('merge');
    const { changed, untied, head } = this.mergedWeights();
    const { names, config } = this.network;
    const model = this.base_model.fresh({ tie_word_embeddings: config.tie_word_embeddings && !untied });
    try {
      for (const [name, variable] of Object.entries(model.weights.all())) {
        const isHead = name === names.head && untied;
        const value = (isHead && head) || (changed.get(name) ?? this.base[isHead ? names.embedding : name]);
        if (value === undefined || isStored(value))
          throw new ArgumentError(`Cannot merge: '${name}' is quantised; load the base in float32`, { name });
        (variable as tf.Variable).assign(value);
      }
      return model as ReturnType<M['fresh']>;
    } catch (error) {
      model.dispose();
      throw error;
    } finally {
      for (const tensor of changed.values()) tensor.dispose();
      head?.dispose();
    }
  }

  /** Removes all adapters and gives the base model back as it was; this PeftModel is then disposed. */
  unload(): M {
    this.dispose();
    return this.base_model;
  }

  /** Frees the adapters. The base model is left as it was before them, and stays alive. */
  dispose(): void {
    if (this.disposed) return;
    if (this.merged) this.unmerge_adapter();
    this.enabled = false;
    const replaced = [...this.replaced];
    for (const [name, { own }] of replaced) this.base[name] = own;
    this.replaced.clear();
    this.install();
    for (const [, { variable }] of replaced) variable.dispose();
    for (const adapter of this.adapters.values()) adapter.dispose();
    this.adapters.clear();
    this.disposed = true;
  }
}

/**
 * Puts a fresh adapter on a model.
 * @throws ConfigError for a wrong configuration, ArgumentError for modules that cannot be adapted
 * @example
 * const peft = get_peft_model(model, { r: 8, lora_alpha: 16, target_modules: ['in_proj', 'embeddings'] });
 * peft.get_nb_trainable_parameters(); // { trainable, all }
 */
export function get_peft_model<M extends CausalLM>(
  model: M,
  config: LoraConfig | (Partial<LoraConfigFields> & LoraConfigNotes),
  options: PeftOptions = {},
): PeftModel<M> {
  GET_TABLE.check(options);
  const lora = config instanceof LoraConfig ? config : new LoraConfig(config);
  const peft = new PeftModel(model, options.on_warning);
  peft.add_adapter(options.adapter_name ?? 'default', lora, { seed: options.seed });
  return peft;
}
