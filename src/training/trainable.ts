/** A model as training sees it: a network, tensors that change, tensors that do not, and how they make its weights. */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import type { RecurrentLM } from '../engine/recurrent_lm.js';
import { isMatrix, isStored, type Weights } from '../layers/index.js';
import type { CausalLM } from '../models/causal_lm.js';
import { PeftModel } from '../peft/index.js';

export interface Trainable {
  readonly network: RecurrentLM;
  /** Names of the projections, the embedding and the head: with bf16, their products are made in bfloat16. */
  readonly matrices: ReadonlySet<string>;
  /** The causal model whose weights these are. */
  readonly model: CausalLM;
  /** Variables that training changes, by name. */
  trainable(): Map<string, tf.Variable>;
  /** The weight of the network that each of these is, or acts on, by the name in trainable(). */
  targets(): ReadonlyMap<string, string>;
  /** The rest, by checkpoint name. */
  frozen(): Weights;
  /** All weights by checkpoint name, over given tensors. @param seed int32 [2], for dropout */
  compose(trainable: Readonly<Record<string, tf.Tensor>>, frozen: Weights, seed?: tf.Tensor1D): Weights;
}

/** What can be trained: a causal language model, or one with adapters. */
export type TrainableModel = CausalLM | PeftModel;

/** The causal model itself, without adapters. */
export function causalOf(model: TrainableModel): CausalLM {
  return model instanceof PeftModel ? model.base_model : model;
}

/**
 * A model (all weights are trained) or a model with adapters (they alone are).
 * @throws ArgumentError for quantised weights without an adapter, and for a model that lies on several devices
 */
export function trainableOf(model: TrainableModel): Trainable {
  const causal = causalOf(model);
  if (causal.divided)
    throw new ArgumentError(
      `Training: the ${causal.tp_size === null ? 'device_map' : 'tp_plan'} puts the model on several devices, and a model is trained whole on each device. Load it without; data_parallel: 'auto' trains on several.`,
      causal.tp_size === null
        ? { option: 'device_map', got: causal.hf_device_map }
        : { option: 'tp_plan', got: 'auto', tp_size: causal.tp_size },
    );
  const { network } = causal;
  const specs = network.weightSpecs();
  const matrices = new Set(specs.filter(isMatrix).map(({ name }) => name));
  if (model instanceof PeftModel) {
    if (model.trainable().size === 0)
      throw new ArgumentError('Training: no adapter is active, so nothing would be trained', {});
    return {
      network,
      matrices,
      model: causal,
      trainable: () => model.trainable(),
      targets: () => model.targets(),
      frozen: () => model.frozen(),
      compose: (trainable, frozen, seed) => model.compose(trainable, frozen, seed),
    };
  }
  return {
    network,
    matrices,
    model: causal,
    trainable: () => {
      const entries = Object.entries(causal.weights.all());
      const stored = entries.find(([, weight]) => isStored(weight));
      if (stored)
        throw new ArgumentError(
          `Training: '${stored[0]}' is quantised and cannot be trained itself; put an adapter on the model (get_peft_model)`,
          { name: stored[0] },
        );
      return new Map(entries as [string, tf.Variable][]);
    },
    targets: () => new Map(specs.map(({ name }) => [name, name])),
    frozen: () => ({}),
    compose: (trainable) => trainable,
  };
}
