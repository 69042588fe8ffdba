/** A causal language model over any recurrent network: loss, generation, states, saving. */
import { chosenGpu, gpuRooms, onGpu } from '../runtime/index.js';
import { checkMemory } from '../base/memory.js';
import * as tf from '@tensorflow/tfjs';
import { computeDtypeOf } from '../base/compute_dtypes.js';
import { ArgumentError, DeviceError, TokenizerError } from '../base/errors.js';
import type { CheckpointSource } from '../checkpoints/source.js';
import { CompiledEngine } from '../engine/compiled/compiled_engine.js';
import type { CompiledEngineOptions } from '../engine/compiled/options.js';
import { EagerEngine } from '../engine/eager_engine.js';
import { type IdsLike, intGrid } from '../engine/inputs.js';
import { NetworkWeights } from '../engine/network_weights.js';
import { type HfDeviceMap, type Machine, type Placement, placeModel } from '../engine/placement/place.js';
import { isParallel, type Spread } from '../engine/placement/spread.js';
import { modulesOf, storedBytes } from '../engine/placement/modules.js';
import { type MapOptions, mapRequest, PLACE_TABLE } from '../engine/placement/request.js';
import { storageOf } from '../engine/compiled/program_weights.js';
import type { RecurrentLM } from '../engine/recurrent_lm.js';
import type { RecurrentCache } from '../engine/states/cache.js';
import { GenerationConfig } from '../generation/config.js';
import { resolveCall, tellingStreamer } from '../generation/generate.js';
import type { GenerationEngine } from '../generation/engine.js';
import type { GenerateInputs, GenerateOutput, RowsAlone, WholeOutput } from '../generation/inputs.js';
import { type GenerationWarmupOptions, MODEL_WARMUP_TABLE, warmUpGeneration } from '../generation/warmup.js';
import { Tokenizer } from '../tokenizers/index.js';
import { Backbone, type BackboneInputs, type BackboneOutputs } from './backbone.js';
import { FORWARD_TABLE, PREFILL_TABLE } from './forward_options.js';
import { type EncodedIds, checkedArguments, type GenerateOptions } from './generate_arguments.js';
import { type EngineKind, type EngineOptions, MODEL_TABLE } from './engine_options.js';
import { causalLoss, type ShiftedLabels, shiftLabels } from './loss.js';
import { SAVE_PRETRAINED_TABLE, type SaveOptions, saveWeights } from './save.js';
import { generateWithStates, type PrefillInput, type PrefillOptions, prefillState } from './stateful.js';
import type { RecurrentState } from './state.js';

export interface CausalLMInputs<C extends RecurrentCache = RecurrentCache> extends BackboneInputs<C> {
  /** [b, t]; position t predicts label t+1; -100 is left out. Gives `loss`. */
  labels?: IdsLike;
  /** Logits for the last n positions only; 0 (default) for all. Not together with labels. */
  logits_to_keep?: number;
}

export interface CausalLMOutputs<C extends RecurrentCache = RecurrentCache> {
  /** [b, t or logits_to_keep, v], float32 */
  logits: tf.Tensor3D;
  /** Mean over the kept labels. */
  loss?: tf.Scalar;
  cache?: C;
  hidden_states?: tf.Tensor3D[];
}

/**
 * A network with what users do with it. Architectures have a class of their own that reads their checkpoints
 * (Mamba2ForCausalLM); with a network at hand this one will do.
 * @typeParam N the network @typeParam C its cache
 */
export class CausalLM<N extends RecurrentLM = RecurrentLM, C extends RecurrentCache = RecurrentCache> {
  readonly weights: NetworkWeights<N>;
  /** The model without its head. */
  readonly backbone: Backbone<N, C>;
  /** Defaults of generate(); from generation_config.json where the folder has one. */
  generation_config: GenerationConfig;
  private made: CompiledEngine | EagerEngine | null = null;
  /** The version of the weights that it was made of. */
  private madeAt = 0;
  private folders: Promise<Tokenizer | null> | null = null;
  private readonly kind: EngineKind;
  private readonly engineOptions: CompiledEngineOptions;
  private placement: Placement | null = null;
  /** Whether it was told that forward() knows one device. */
  private warned = false;

  /** @param source where the weights come from; without one they are freshly initialised */
  constructor(network: N, source: CheckpointSource | null = null, options: EngineOptions = {}) {
    MODEL_TABLE.check(options);
    const { engine = 'auto', ...rest } = options;
    this.kind = engine;
    this.engineOptions = rest;
    this.weights = new NetworkWeights(network, source);
    // at once where a change is known of: the program of an engine takes room on the device
    this.weights.watch(() => this.dropEngine());
    this.backbone = this.makeBackbone(this.weights);
    this.generation_config = GenerationConfig.from_model_config(network.config.to_dict());
  }

  protected makeBackbone(weights: NetworkWeights<N>): Backbone<N, C> {
    return new Backbone(weights);
  }

  /** A freshly initialised model of the same architecture, with other values for some keys of the configuration. */
  fresh(changes: Readonly<Record<string, unknown>> = {}): CausalLM<N, C> {
    return new CausalLM<N, C>(this.network.withConfig(changes) as N);
  }

  get network(): N {
    return this.weights.network;
  }

  get config(): N['config'] {
    return this.network.config;
  }

  /**
   * Writes config.json, generation_config.json and the weights in the layout that transformers loads. Written aside and
   * renamed: a failure leaves no file that looks finished.
   */
  async save_pretrained(dir: string, options: SaveOptions = {}): Promise<void> {
    SAVE_PRETRAINED_TABLE.check(options);
    await saveWeights(dir, this.weights, options);
    await this.generation_config.save_pretrained(dir);
  }

  /**
   * The same layers as a tf.LayersModel: ids int32 [b, t] -> logits [b, t, v]. What changes its weights, as setWeights()
   * does, changes what generate() writes.
   */
  get layersModel(): tf.LayersModel {
    return this.weights.layersModels().causal;
  }

  /**
   * Where the modules lie, as accelerate tells it: '' is the whole model, numbers are GPUs.
   * @example
   * const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2', { device_map: 'auto' });
   * model.hf_device_map; // { '': 'cpu' } where there is no GPU
   */
  get hf_device_map(): HfDeviceMap {
    return { ...(this.placement?.map ?? { '': deviceInUse() }) };
  }

  /** How many devices have a part of each layer (tp_plan); null where layers are whole. */
  get tp_size(): number | null {
    return this.placement?.parallel?.devices.length ?? null;
  }

  /** Whether it lies on devices other than the one that all computes on. */
  get divided(): boolean {
    return this.spread !== null;
  }

  private get spread(): Spread | null {
    return this.placement?.parallel ?? this.placement?.division ?? null;
  }

  /** Which option put it on several devices. */
  private get spreadBy(): 'tp_plan' | 'device_map' {
    return isParallel(this.spread) ? 'tp_plan' : 'device_map';
  }

  /** Told once: forward() is computed op by op. */
  private warnOfOneDevice(): void {
    if (!this.divided || this.warned) return;
    this.warned = true;
    process.emitWarning(
      `forward() is computed op by op on one device, which takes all weights in besides: the ${this.spreadBy} holds for generate(), prefill() and engines.`,
      { code: 'MAMBA2_DEVICE_MAP' },
    );
  }

  /**
   * Lays the model where a device_map or a tp_plan says; what was made before for other places is dropped.
   * @throws ArgumentError for a map or a plan that does not fit the model or the machine, DeviceError where the device cannot be had
   */
  place(options: MapOptions): void {
    PLACE_TABLE.check(options);
    const request = mapRequest(options);
    if (!request) throw new ArgumentError('place() needs a device_map or a tp_plan.', { option: 'device_map' });
    const { weights, engineOptions } = this;
    const dtype = computeDtypeOf(engineOptions.dtype ?? 'auto')!;
    const specs = new Map(weights.network.weightSpecs().map((spec) => [spec.name, spec]));
    const native = tf.getBackend() === 'tensorflow';
    const tree = modulesOf(weights.network, (name) => {
      const spec = specs.get(name)!;
      if (!native) return 4 * tf.util.sizeFromShape([...spec.shape]);
      return storedBytes(weights.storage(spec, (one) => storageOf(weights, one, dtype)));
    });
    const placement = placeModel(weights.network, tree, request, machine());
    if (placement.division ?? placement.parallel) this.checkDivided(placement);
    this.placement = placement;
    this.dropEngine();
  }

  /** @throws ArgumentError for options that hold for one device alone, and for weights that cannot be cut */
  private checkDivided({ map, parallel }: Placement): void {
    const where = parallel
      ? `the tp_plan has ${parallel.devices.length} devices`
      : `the device_map has several devices (${[...new Set(Object.values(map))].join(', ')})`;
    const fault = (option: string, got: unknown, why: string): never => {
      throw new ArgumentError(`${option} is ${JSON.stringify(got)}, and ${where}: ${why}.`, {
        option,
        got,
        ...(parallel ? { tp_size: parallel.devices.length } : { device_map: map }),
      });
    };
    const { fixed_blocks, sums } = this.engineOptions;
    if (this.kind === 'eager') fault('engine', 'eager', 'op by op everything is computed on one, so take the compiled engine'); // prettier-ignore
    if (fixed_blocks === false)
      fault('fixed_blocks', false, 'no loop passes through them, so that calls have the same number of steps');
    if (parallel && sums === 'inside' && !onGpu())
      fault('sums', sums, "a processor's logical devices add up between what XLA compiles");
    for (const { name } of parallel ? this.network.weightSpecs() : []) {
      const cut = parallel!.plan.weight(name);
      // refused here, where it is asked for, and not when a text is
      if (cut) this.weights.storedForm(name)?.part?.(cut.part(0));
    }
  }

  /** Number of parameters; a tied head counts once. */
  num_parameters(): number {
    return this.weights.network.weightSpecs().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  }

  /**
   * Logits, and the loss when labels are given. Outputs are new tensors, the caller's to dispose.
   * @throws ArgumentError as Backbone.forward, and for labels of another size or outside the vocabulary
   */
  forward(inputs: CausalLMInputs<C>): CausalLMOutputs<C> {
    FORWARD_TABLE.checkObject(inputs);
    FORWARD_TABLE.check(inputs);
    const { labels: given, logits_to_keep: keep = 0, ...rest } = inputs;
    // before anything runs, so that a bad label neither leaves tensors nor advances a cache
    const labels = given === undefined ? null : this.shifted(given, inputs);
    this.warnOfOneDevice();
    return this.withLogits(this.backbone.forward(rest), labels, keep);
  }

  /**
   * As forward(), with the event loop running between layers: weights do not change meanwhile. No tidy knows of the outputs.
   * @throws as forward(); DisposedError where the model or the cache is disposed of meanwhile
   * @example
   * const { logits } = await model.forwardAsync({ input_ids: [[1, 2, 3]], use_cache: false });
   */
  async forwardAsync(inputs: CausalLMInputs<C>): Promise<CausalLMOutputs<C>> {
    FORWARD_TABLE.checkObject(inputs);
    FORWARD_TABLE.check(inputs);
    const { labels: given, logits_to_keep: keep = 0, ...rest } = inputs;
    const labels = given === undefined ? null : this.shifted(given, inputs);
    this.warnOfOneDevice();
    return this.withLogits(await this.backbone.forwardAsync(rest), labels, keep);
  }

  private withLogits(
    { last_hidden_state: h, cache, hidden_states }: BackboneOutputs<C>,
    labels: ShiftedLabels | null,
    keep: number,
  ): CausalLMOutputs<C> {
    const [b, t, d] = h.shape;
    try {
      const positions = b * (keep > 0 ? Math.min(keep, t) : t);
      // cross-entropy makes probabilities of them besides
      const bytes = positions * 4 * this.config.vocab_size * (labels ? 2 : 1);
      if (!onGpu())
        checkMemory(
          bytes,
          `forward(): logits of ${positions} positions`,
          'Pass fewer rows at once, or logits_to_keep.',
        );
      const made = tf.tidy(() => {
        const part = keep > 0 && keep < t ? tf.slice(h, [0, t - keep, 0], [b, keep, d]) : h;
        const logits = this.weights.network.head(this.weights.all(), part) as tf.Tensor3D;
        return labels ? { logits, loss: causalLoss(logits, labels) } : { logits };
      });
      return { ...made, ...(cache && { cache }), ...(hidden_states && { hidden_states }) };
    } finally {
      h.dispose();
    }
  }

  private shifted(labels: IdsLike, { input_ids, inputs_embeds }: BackboneInputs<C>): ShiftedLabels {
    const grid = intGrid(labels, 'labels');
    const ids = input_ids === undefined ? null : intGrid(input_ids, 'input_ids');
    const [batch, length] = ids ? [ids.batch, ids.length] : (inputs_embeds?.shape ?? [grid.batch, grid.length]);
    if (grid.batch !== batch || grid.length !== length) {
      throw new ArgumentError(`labels: have shape [${grid.batch}, ${grid.length}], expected [${batch}, ${length}]`, {});
    }
    return shiftLabels(grid.values, batch, length, this.config.vocab_size);
  }

  /**
   * New tokens after the prompts: Hugging Face's generate(), with options by their names there.
   *
   * Also as generate(input_ids, options), where input_ids may be what the tokenizer gave, mask and all.
   *
   * @returns ids row by row, prompt first; an object with scores and more with return_dict_in_generate or return_state
   * @throws GenerationError for an unknown option, a wrong value, or an empty prompt; ArgumentError for what are no ids of the model
   * @example
   * const [ids] = await model.generate({ input_ids: [[1, 2, 3]], max_new_tokens: 20 });
   */
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
    const inputs = await tellingStreamer((options ?? first ?? {}) as Pick<GenerateInputs, 'streamer'>, () =>
      checkedArguments(first, options),
    );
    const known = async (): Promise<number | undefined> => (await this.folderTokenizer())?.vocab_size;
    const engine = await tellingStreamer(inputs, () => {
      resolveCall(this.generation_config, inputs);
      return this.engine();
    });
    return generateWithStates(this, inputs, engine, known);
  }

  /**
   * Reads a prompt and returns what the model knows after it: to go on from many times, to fork, to save.
   *
   * @param prompt a text, ids, or several of either, one per row and of any lengths
   * @throws ArgumentError for an empty prompt, an id outside the vocabulary, a text without a tokenizer, or a state of
   *   another model; the signal's reason after an abort, which leaves a state given as it was after the last whole
   *   segment
   * @example
   * const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2');
   * const state = await model.prefill('Once upon a time');
   * const again = await model.prefill(' there was', { state: await state.clone() });
   */
  async prefill(prompt: PrefillInput, options: PrefillOptions = {}): Promise<RecurrentState> {
    PREFILL_TABLE.check(options);
    return prefillState(this, prompt, { tokenizer: () => this.folderTokenizer(), ...options });
  }

  /** The folder's tokenizer, if it has one: ids beyond its vocabulary are padding, never to be sampled (D15). */
  private folderTokenizer(): Promise<Tokenizer | null> {
    const dir = this.weights.source?.dir;
    this.folders ??= dir === undefined ? Promise.resolve(null) : Tokenizer.from_pretrained(dir).catch(noTokenizer);
    return this.folders;
  }

  /**
   * The engine that generates: compiled on the tensorflow backend, eager elsewhere, unless `engine` was given when
   * loading. Made at the first call and kept until weights change; states of the one before are then lost.
   * @throws DeviceError when 'compiled' was asked for and the backend is not tensorflow
   */
  async engine(): Promise<GenerationEngine> {
    if (this.weights.version !== this.madeAt) this.dropEngine();
    this.madeAt = this.weights.version;
    this.made ??= this.makeEngine();
    return this.made;
  }

  /**
   * Compiles what calls of generate() with these batch sizes and lengths of prompts will run, so that the first of them is as fast as
   * all. The eager engine has nothing to compile.
   * @throws ArgumentError for a wrong option; the signal's reason
   * @example await model.warmup({ batches: [1, 4], lengths: [16], generation: { do_sample: true } });
   */
  async warmup(options: GenerationWarmupOptions = {}): Promise<void> {
    MODEL_WARMUP_TABLE.check(options);
    if (options.generation) resolveCall(this.generation_config, { ...options.generation, input_ids: [] });
    return warmUpGeneration(await this.engine(), this.generation_config, options);
  }

  private makeEngine(): CompiledEngine | EagerEngine {
    const native = tf.getBackend() === 'tensorflow';
    const { kind } = this;
    if (kind === 'compiled' && !native) {
      throw new DeviceError(
        `engine 'compiled' needs the tensorflow backend, and '${tf.getBackend()}' is in use. Run \`npx mamba2 setup\`, or take engine 'eager'.`,
        { backend: tf.getBackend() },
      );
    }
    const widens = computeDtypeOf(this.engineOptions.dtype ?? 'auto') === 'float32';
    if (kind === 'eager' || !native) return new EagerEngine(this.weights, !widens);
    return new CompiledEngine(this.weights, this.engineOptions, this.spread);
  }

  /** An engine of weights as they were is of no use. */
  private dropEngine(): void {
    this.made?.dispose();
    this.made = null;
  }

  dispose(): void {
    this.dropEngine();
    this.weights.dispose();
  }
}

/** The device that computes without a map, as maps name it. */
function deviceInUse(): number | string {
  if (onGpu()) return chosenGpu();
  const backend = tf.getBackend();
  return backend === 'tensorflow' ? 'cpu' : backend === 'cpu' ? 'js' : backend;
}

function machine(): Machine {
  return { tensorflow: tf.getBackend() === 'tensorflow', gpus: onGpu() ? gpuRooms() : [], device: deviceInUse() };
}

/** A folder without a tokenizer is none without a model. */
function noTokenizer(error: unknown): null {
  if (error instanceof TokenizerError) return null;
  throw error;
}
