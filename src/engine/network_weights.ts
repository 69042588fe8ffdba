/** The weights of a network: where they come from, and what stands in for them. */
import * as tf from '@tensorflow/tfjs';
import { ConfigError, DisposedError } from '../base/errors.js';
import { Turns } from '../base/turns.js';
import type { CheckpointSource } from '../checkpoints/source.js';
import type { WeightStorage } from '../layers/storage.js';
import type { StoredMatrix, Weight, Weights, WeightSpec } from '../layers/weights.js';
import { fileTensor, readBeforeClosing } from './file_tensors.js';
import { PackedWeights } from './packed_weights.js';
import type { RecurrentLM } from './recurrent_lm.js';

/** The weights of a network: where they come from, and the layer variables they become when run eagerly. */
export class NetworkWeights<N extends RecurrentLM = RecurrentLM> {
  /**
   * Who reads all weights in pieces, between which others run, and who changes many of them take turns: so nobody computes with the half of an
   * update.
   */
  readonly turns = new Turns();
  private record: Weights | null = null;
  private plain: Record<string, tf.Variable> | null = null;
  /** What eager runs use until something wants variables. */
  private packed: PackedWeights | null = null;
  private readonly stored = new Map<string, StoredMatrix>();
  /** All forms that ever stood in for a weight: what they hold goes with the model. */
  private readonly owned = new Set<StoredMatrix>();
  private models: { backbone: tf.LayersModel; causal: tf.LayersModel } | null = null;
  private disposed = false;
  private changes = 0;
  /** Where the values of all tensors lay when last looked at: assigning to a variable gives it others. */
  private readonly seen = new Map<tf.Tensor, tf.DataId>();
  private readonly watchers = new Set<() => void>();
  /** Data of tensors whose values may still be in the file alone. */
  private readonly inFile: tf.DataId[] = [];

  constructor(
    readonly network: N,
    readonly source: CheckpointSource | null,
  ) {}

  /** True when variables exist; before that only the checkpoint does, and what eager runs have of it. */
  get materialized(): boolean {
    return this.models !== null || this.plain !== null;
  }

  /**
   * Counts changes, in whatever way they come: a stored form, a variable assigned to by training, by merging or by
   * setWeights(). What was made from the weights at one version holds for no other.
   */
  get version(): number {
    let moved = false;
    for (const [tensor, data] of this.seen) {
      if (tensor.dataId === data) continue;
      this.seen.set(tensor, tensor.dataId);
      moved = true;
    }
    if (moved) this.change();
    return this.changes;
  }

  /** Calls back at every change: at once for a stored form, for a variable when the version is next asked for. */
  watch(changed: () => void): void {
    this.watchers.add(changed);
  }

  private change(): void {
    this.changes++;
    for (const changed of this.watchers) changed();
  }

  private look(tensors: readonly tf.Tensor[]): void {
    for (const tensor of tensors) this.seen.set(tensor, tensor.dataId);
  }

  /** Has the weights ready that will be read from the checkpoint, where files have to be waited for: in a browser. */
  async hold(): Promise<void> {
    const { source, network } = this;
    for (const { name } of network.weightSpecs()) if (!this.stored.has(name)) await source?.hold?.(name);
  }

  /** Builds the layers and fills them: from the checkpoint, one tensor at a time, or freshly initialised. */
  layersModels(): { backbone: tf.LayersModel; causal: tf.LayersModel } {
    if (this.disposed) throw new DisposedError('This model was disposed');
    if (this.models) return this.models;
    if (this.plain) throw new ConfigError('A model with stored (quantised) weights has no LayersModel', {});
    const { network, source } = this;
    for (const { prefix, layer } of network.namedLayers()) {
      if (source) layer.source = (spec) => this.read(source, prefix + spec.name, spec.shape);
    }
    const ids = tf.input({ shape: [null], dtype: 'int32', name: 'input_ids' });
    const { hidden, logits } = network.connect(ids);
    this.models = {
      backbone: tf.model({ inputs: ids, outputs: hidden, name: `${network.name}_backbone` }),
      causal: tf.model({ inputs: ids, outputs: logits, name: `${network.name}_causal_lm` }),
    };
    this.dropPacked();
    this.look(network.namedLayers().flatMap(({ layer }) => Object.values(layer.weightMap()) as tf.Tensor[]));
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

  /**
   * All weights for eager runs without gradients: as all(), but on WebAssembly and WebGPU the matrices of a bfloat16 checkpoint stay as they are, until
   * something else wants variables.
   */
  running(): Weights {
    if (this.packed) return this.packed.weights;
    const { source, network } = this;
    if (this.disposed || !source || this.materialized || this.stored.size > 0) return this.all();
    this.packed = PackedWeights.of(source, network.weightSpecs());
    return this.packed ? this.packed.weights : this.all();
  }

  private dropPacked(): void {
    const { packed } = this;
    if (!packed) return;
    this.packed = null;
    // values are as they were: nobody has to be told, but what was prepared over it holds no longer
    this.changes++;
    // somebody may be in the middle of a run over it
    void this.turns.take(async () => packed.dispose());
  }

  /** The weight under a stored form, as a float32 variable; undefined when the stored form replaced it. */
  base(name: string): tf.Variable | undefined {
    const weights = this.models ? this.layerVariables() : (this.plain ?? {});
    return weights[name] as tf.Variable | undefined;
  }

  /** Lets a stored form (packed integers, a base with an adapter) stand in for a weight; null brings the variable back. */
  store(name: string, matrix: StoredMatrix | null): void {
    // forms stand in for variables
    if (this.packed) this.layersModels();
    const before = this.stored.get(name);
    if (matrix === (before ?? null)) return;
    if (before) for (const tensor of madeOf(before)) this.seen.delete(tensor);
    if (matrix) {
      this.stored.set(name, matrix);
      // a module that is trained whole is a variable, and another's
      if (!((matrix as object) instanceof tf.Tensor)) this.owned.add(matrix);
    } else this.stored.delete(name);
    for (const form of this.stored.values()) this.look(madeOf(form));
    this.record = null;
    this.change();
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
        made[spec.name] = tf.tidy(() => tf.variable(this.read(source, spec.name, spec.shape)));
      }
      this.plain = made;
      this.look(Object.values(made));
    }
    return this.plain;
  }

  private read(source: CheckpointSource, name: string, shape: readonly number[]): tf.Tensor {
    if (this.packed) return this.packed.float32(name);
    const tensor = fileTensor(source, name, shape);
    this.inFile.push(tensor.dataId);
    return tensor;
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    // both models share their layers: disposing one would leave the other's count above zero
    if (this.models) for (const { layer } of this.network.namedLayers()) layer.weights.forEach((w) => w.dispose());
    if (this.plain) tf.dispose(this.plain);
    this.packed?.dispose();
    this.packed = null;
    for (const form of this.owned) form.dispose?.();
    this.owned.clear();
    this.record = null;
    this.models = null;
    this.seen.clear();
    this.watchers.clear();
    // another model may have taken them over
    readBeforeClosing(this.inFile);
    void this.source?.close();
  }
}

/** Tensors that may be assigned to. A variable of its own may also stand in for a weight: a module trained whole. */
function madeOf(form: StoredMatrix | tf.Tensor): readonly tf.Tensor[] {
  return form instanceof tf.Tensor ? [form] : (form.tensors ?? []);
}
