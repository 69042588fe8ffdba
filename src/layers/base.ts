/** What our layers share: weights declared from specs, read back as a record, and the tf.layers plumbing. */
import * as tf from '@tensorflow/tfjs';
import type { WeightInit, WeightSpec, Weights } from './weights.js';

export type LayerArgs = NonNullable<ConstructorParameters<typeof tf.layers.Layer>[0]>;

/** A tf.layers initializer made from a spec or a source. Only used while building, so it is never serialised. */
class FromSpec extends tf.serialization.Serializable {
  static className = 'Mamba2FromSpec';
  constructor(
    private readonly spec: WeightSpec,
    private readonly source: ((spec: WeightSpec) => tf.Tensor) | null,
  ) {
    super();
  }
  apply(shape: tf.Shape): tf.Tensor {
    if (this.source) return this.source(this.spec);
    const dims = shape as number[];
    const init: WeightInit = this.spec.init;
    switch (init.kind) {
      case 'zeros':
        return tf.zeros(dims);
      case 'ones':
        return tf.ones(dims);
      case 'normal':
        return tf.randomNormal(dims, 0, init.std);
      case 'uniform':
        return tf.randomUniform(dims, init.low, init.high);
      case 'values':
        return tf.tensor(init.values(dims.reduce((a, b) => a * b, 1)), dims);
    }
  }
  getConfig(): tf.serialization.ConfigDict {
    return {};
  }
}

/** A layer whose weights are a flat list of specs. Sublayers are not used: tf.layers does not track their weights. */
export abstract class SpecLayer extends tf.layers.Layer {
  private names: string[] = [];
  /** When set before build: where weights come from, instead of fresh initialisation (a checkpoint being loaded). */
  source: ((spec: WeightSpec) => tf.Tensor) | null = null;

  /** The weights this layer has, in order. */
  protected abstract weightSpecs(): WeightSpec[];

  /** The weights this layer has or would have, described. */
  specs(): WeightSpec[] {
    return this.weightSpecs();
  }

  override build(inputShape: tf.Shape | tf.Shape[]): void {
    const specs = this.weightSpecs();
    this.names = specs.map((s) => s.name);
    tf.tidy(() => {
      for (const spec of specs) {
        const initializer = new FromSpec(spec, this.source) as unknown as Parameters<typeof this.addWeight>[3];
        this.addWeight(spec.name, spec.shape, 'float32', initializer);
      }
    });
    this.source = null;
    super.build(inputShape);
  }

  /**
   * Builds the layer as its first apply() would: under its own name, which build() alone leaves out of the weights' names,
   * so that a saved model could not be loaded.
   */
  protected ensureBuilt(inputShape: tf.Shape): void {
    if (!this.built) this.apply(tf.input({ batchShape: inputShape }));
  }

  /** The layer's own variables by name, for example { weight } or { 'in_proj.weight', ... }. */
  weightMap(): Weights {
    return Object.fromEntries(this.names.map((name, i) => [name, this.weights[i]!.read()]));
  }

  /**
   * As Layer.dispose(), and also for a layer that was built without apply() (tfjs counts uses in apply() only and would
   * keep the weights) or never built (tfjs would throw).
   */
  override dispose(): ReturnType<tf.layers.Layer['dispose']> {
    if (!this.built) return { refCountAfterDispose: 0, numDisposedVariables: 0 };
    (this as unknown as { _refCount: number | null })._refCount ??= 1;
    return super.dispose();
  }

  override computeOutputShape(inputShape: tf.Shape | tf.Shape[]): tf.Shape | tf.Shape[] {
    return inputShape;
  }
}

/** The only input of a layer that takes one. */
export function single(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
  return Array.isArray(inputs) ? inputs[0]! : inputs;
}
