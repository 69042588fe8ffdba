/** Mamba2Model: the backbone, without a head, as a tfjs model and as Hugging Face's forward(). */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, ConfigError, DisposedError } from '../../base/errors.js';
import type { CheckpointSource } from '../../checkpoints/source.js';
import { decodeFloat32 } from '../../base/stored_dtypes.js';
import type { StoredMatrix, Weight, Weights, WeightSpec } from '../../layers/weights.js';
import type { WeightStorage } from '../../layers/storage.js';
import { Mamba2Cache } from './cache.js';
import type { Mamba2Config } from './config.js';
import { type Compaction, idGrid, type IdsLike, readMask, reorder } from '../../engine/inputs.js';
import { Mamba2Network } from './network.js';

export interface ModelInputs {
  /** Token ids [b, t]. Exactly one of input_ids and inputs_embeds. */
  input_ids?: IdsLike;
  /** Embedded tokens [b, t, d], float32. */
  inputs_embeds?: tf.Tensor3D;
  /** 1 for real tokens, 0 for padding, [b, t] or longer (the last t columns count). Any pattern; exact on both sides. */
  attention_mask?: IdsLike;
  /** State to go on from; advanced in place. */
  cache?: Mamba2Cache;
  /** Return a cache (default true; a given cache is always advanced and returned). */
  use_cache?: boolean;
  /** Return the stream after each block and the normed one last, as transformers does. */
  output_hidden_states?: boolean;
}

export interface ModelOutputs {
  /** [b, t, d]; meaningless at padded positions */
  last_hidden_state: tf.Tensor3D;
  cache?: Mamba2Cache;
  hidden_states?: tf.Tensor3D[];
}

/** The weights of a network: where they come from, and the layer variables they become when run eagerly. */
export class NetworkWeights {
  private record: Weights | null = null;
  private plain: Record<string, tf.Variable> | null = null;
  private readonly stored = new Map<string, StoredMatrix>();
  private models: { backbone: tf.LayersModel; causal: tf.LayersModel } | null = null;
  private disposed = false;

  constructor(
    readonly network: Mamba2Network,
    readonly source: CheckpointSource | null,
  ) {}

  /** True when variables exist; before that only the checkpoint does. */
  get materialized(): boolean {
    return this.models !== null || this.plain !== null;
  }

  /** Builds the layers and fills them: from the checkpoint, one tensor at a time, or freshly initialised. */
  layersModels(): { backbone: tf.LayersModel; causal: tf.LayersModel } {
    if (this.disposed) throw new DisposedError('This model was disposed');
    if (this.models) return this.models;
    if (this.plain) throw new ConfigError('A model with stored (quantised) weights has no LayersModel', {});
    const { network, source } = this;
    for (const { prefix, layer } of network.namedLayers()) {
      if (source) layer.source = (spec) => readWeight(source, prefix, spec);
    }
    const ids = tf.input({ shape: [null], dtype: 'int32', name: 'input_ids' });
    let h = network.embeddings.apply(ids) as tf.SymbolicTensor;
    for (const block of network.blocks) h = block.apply(h) as tf.SymbolicTensor;
    h = network.norm_f.apply(h) as tf.SymbolicTensor;
    const head = network.lm_head ?? network.embeddings;
    const logits = head.apply(h, network.lm_head ? undefined : { reverse: true }) as tf.SymbolicTensor;
    this.models = {
      backbone: tf.model({ inputs: ids, outputs: h, name: 'mamba2_backbone' }),
      causal: tf.model({ inputs: ids, outputs: logits, name: 'mamba2_causal_lm' }),
    };
    return this.models;
  }

  /**
   * All weights by checkpoint name: layer variables, except where a stored form stands in for one (see `store`). A model
   * whose matrices were stored before anything ran never has the layer variables of those.
   */
  all(): Weights {
    if (this.disposed) throw new DisposedError('This model was disposed');
    if (!this.record) {
      const plain = this.models === null && this.stored.size > 0 ? this.plainVariables() : this.layerVariables();
      this.record = { ...plain, ...Object.fromEntries(this.stored) };
    }
    return this.record;
  }

  /** The weight under a stored form, as a float32 variable; undefined when the stored form replaced it. */
  base(name: string): tf.Variable | undefined {
    const weights = this.models ? this.layerVariables() : (this.plain ?? {});
    return weights[name] as tf.Variable | undefined;
  }

  /** Lets a stored form (packed integers, a base with an adapter) stand in for a weight; null brings the variable back. */
  store(name: string, matrix: StoredMatrix | null): void {
    if (matrix) this.stored.set(name, matrix);
    else this.stored.delete(name);
    this.record = null;
  }

  /** The stored form of a weight, if it has one. */
  storedForm(name: string): StoredMatrix | undefined {
    return this.stored.get(name);
  }

  /** How a weight is kept in a compiled program: the stored form's way, or the given default. */
  storage(spec: WeightSpec, otherwise: (spec: WeightSpec) => WeightStorage): WeightStorage {
    return this.stored.get(spec.name)?.storage?.() ?? otherwise(spec);
  }

  private layerVariables(): Record<string, Weight> {
    this.layersModels();
    const record: Record<string, Weight> = {};
    for (const { prefix, layer } of this.network.namedLayers()) {
      for (const [name, weight] of Object.entries(layer.weightMap())) record[prefix + name] = weight;
    }
    return record;
  }

  private plainVariables(): Record<string, Weight> {
    if (!this.plain) {
      const made: Record<string, tf.Variable> = {};
      for (const spec of this.network.weightSpecs()) {
        if (this.stored.has(spec.name)) continue;
        if (!this.source)
          throw new ConfigError('A model without a checkpoint has no weights to read next to stored ones', {
            name: spec.name,
          });
        const source = this.source;
        made[spec.name] = tf.tidy(() => tf.variable(readWeight(source, '', spec)));
      }
      this.plain = made;
    }
    return this.plain;
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    // both models share their layers: disposing one would leave the other's count above zero
    if (this.models) for (const { layer } of this.network.namedLayers()) layer.weights.forEach((w) => w.dispose());
    if (this.plain) tf.dispose(this.plain);
    this.record = null;
    this.models = null;
    void this.source?.close();
  }
}

function readWeight(source: CheckpointSource, prefix: string, spec: WeightSpec): tf.Tensor {
  const name = prefix + spec.name;
  const info = source.tensors.get(name)!;
  return tf.tensor(decodeFloat32(source.readBytesSync(name), info.dtype), spec.shape);
}

/** What forward() works on after its inputs were checked. */
interface Prepared {
  embedded: tf.Tensor3D;
  padding: Compaction | null;
}

/**
 * The Mamba-2 backbone: embedding, blocks, final norm. Source: Hugging Face Mamba2Model.
 *
 * @example
 * const model = new Mamba2Model(new Mamba2Config({ hidden_size: 32, num_heads: 4, head_dim: 16, n_groups: 1, num_hidden_layers: 2 }));
 * const { last_hidden_state, cache } = model.forward({ input_ids: [[1, 2, 3]] }); // [1, 3, 32]
 */
export class Mamba2Model {
  readonly weights: NetworkWeights;

  /** With `weights` the model shares them (a causal model's backbone); without, it initialises its own. */
  constructor(
    readonly config: Mamba2Config,
    weights?: NetworkWeights,
  ) {
    this.weights = weights ?? new NetworkWeights(new Mamba2Network(config), null);
  }

  get network(): Mamba2Network {
    return this.weights.network;
  }

  /** The same layers as a tf.LayersModel: ids int32 [b, t] -> [b, t, d]. predict, summary, getWeights and save work. */
  get layersModel(): tf.LayersModel {
    return this.weights.layersModels().backbone;
  }

  get_input_embeddings(): tf.Tensor {
    return this.weights.all()['backbone.embeddings.weight'] as tf.Tensor;
  }

  private prepare(inputs: ModelInputs): Prepared {
    const { input_ids, inputs_embeds, attention_mask } = inputs;
    if ((input_ids === undefined) === (inputs_embeds === undefined)) {
      throw new ArgumentError(
        `forward: got ${input_ids === undefined ? 'neither' : 'both'} of input_ids and inputs_embeds, expected exactly one`,
        {},
      );
    }
    if (inputs_embeds) {
      const [b, t, d] = inputs_embeds.shape;
      if (inputs_embeds.rank !== 3 || d !== this.config.hidden_size || t === 0) {
        throw new ArgumentError(
          `inputs_embeds: has shape [${inputs_embeds.shape}], expected [b, t, ${this.config.hidden_size}]`,
          {},
        );
      }
      const padding = readMask(attention_mask, b, t);
      return { embedded: padding?.order ? reorder(inputs_embeds, padding.order) : tf.clone(inputs_embeds), padding };
    }
    const ids = idGrid(input_ids!, this.config.vocab_size);
    const padding = readMask(attention_mask, ids.batch, ids.length);
    const values = padding?.order ? padding.order.map((from) => ids.values[from]!) : ids.values;
    const tensor = tf.tensor2d(values, [ids.batch, ids.length], 'int32');
    return { embedded: this.network.embed(this.weights.all(), tensor), padding };
  }

  /**
   * Runs the backbone. Outputs are new tensors, the caller's to dispose (a tidy around the call does not dispose a cache
   * that was passed in).
   *
   * @throws ArgumentError for ids outside the vocabulary, a mask of the wrong size, both or neither of the inputs, or a
   *   cache of another batch size or another model
   */
  forward(inputs: ModelInputs): ModelOutputs {
    const { cache } = inputs;
    const keepCache = cache !== undefined || (inputs.use_cache ?? this.config.use_cache);
    const kept: tf.Tensor3D[] = [];
    const weights = this.weights.all();
    const result = tf.tidy(() => {
      const { embedded, padding } = this.prepare(inputs);
      const [b, t] = embedded.shape;
      cache?.check(this.config, b);
      const restore = (x: tf.Tensor3D): tf.Tensor3D => (padding?.back ? reorder(x, padding.back) : tf.clone(x));
      const onBlock = inputs.output_hidden_states ? (h: tf.Tensor3D): void => void kept.push(restore(h)) : undefined;
      const mask = padding ? tf.tensor2d(padding.mask, [b, t]) : undefined;
      const { h, states } = this.network.hidden(weights, embedded, { states: cache?.layers, mask, onBlock });
      const last = restore(h);
      return {
        last,
        conv: keepCache ? states.map((s) => s.conv) : [],
        ssm: keepCache ? states.map((s) => s.ssm) : [],
        kept,
        t,
      };
    });
    const outputs: ModelOutputs = { last_hidden_state: result.last };
    if (keepCache) {
      const states = result.conv.map((conv, i) => ({ conv, ssm: result.ssm[i]! }));
      outputs.cache = cache ?? Mamba2Cache.empty();
      outputs.cache.advance(states, result.t);
    }
    // in the order of transformers: the output of every block, then the normed stream
    if (inputs.output_hidden_states) outputs.hidden_states = [...result.kept, tf.clone(result.last)];
    return outputs;
  }

  dispose(): void {
    this.weights.dispose();
  }
}
