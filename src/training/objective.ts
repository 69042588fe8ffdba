/** What a training step differentiates: the summed loss of a batch as a pure function of the trained tensors. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { matMulBf16 } from '../jit/index.js';
import { isMatrix, isStored, type StoredMatrix, type Weight, type Weights } from '../layers/index.js';
import type { Mamba2ForCausalLM } from '../models/mamba2/index.js';
import type { Mamba2Network } from '../models/mamba2/network.js';
import { PeftModel } from '../peft/index.js';
import { onGpu } from '../runtime/index.js';
import { recompute } from './recompute.js';
import { crossEntropySum, fusedCrossEntropy } from './fused_loss.js';

/** A model as training sees it: tensors that change, tensors that do not, and how they make the network's weights. */
export interface Trainable {
  readonly network: Mamba2Network;
  /** Names of the projections, the embedding and the head: with bf16, their products are made in bfloat16. */
  readonly matrices: ReadonlySet<string>;
  /** The causal model whose weights these are. */
  readonly model: Mamba2ForCausalLM;
  /** Variables that training changes, by name. */
  trainable(): Map<string, tf.Variable>;
  /** The rest, by checkpoint name. */
  frozen(): Weights;
  /** All weights by checkpoint name, over given tensors. @param seed int32 [2], for dropout */
  compose(trainable: Readonly<Record<string, tf.Tensor>>, frozen: Weights, seed?: tf.Tensor1D): Weights;
}

export type TrainableModel = Mamba2ForCausalLM | PeftModel;

/** Names of a network's projections, embedding and head. */
function matricesOf(network: Mamba2Network): ReadonlySet<string> {
  return new Set(
    network
      .weightSpecs()
      .filter(isMatrix)
      .map(({ name }) => name),
  );
}

/** A model (all weights are trained) or a model with adapters (they alone are). @throws ArgumentError for quantised weights without an adapter */
export function trainableOf(model: TrainableModel): Trainable {
  if (model instanceof PeftModel) {
    if (model.trainable().size === 0)
      throw new ArgumentError('Training: no adapter is active, so nothing would be trained', {});
    return {
      network: model.base_model.weights.network,
      matrices: matricesOf(model.base_model.weights.network),
      model: model.base_model,
      trainable: () => model.trainable(),
      frozen: () => model.frozen(),
      compose: (trainable, frozen, seed) => model.compose(trainable, frozen, seed),
    };
  }
  return {
    network: model.weights.network,
    matrices: matricesOf(model.weights.network),
    model,
    trainable: () => {
      const entries = Object.entries(model.weights.all());
      const stored = entries.find(([, weight]) => isStored(weight));
      if (stored)
        throw new ArgumentError(
          `Training: '${stored[0]}' is quantised and cannot be trained itself; put an adapter on the model (get_peft_model)`,
          { name: stored[0] },
        );
      return new Map(entries as [string, tf.Variable][]);
    },
    frozen: () => ({}),
    compose: (trainable) => trainable,
  };
}

export interface ObjectiveOptions {
  /**
   * Products of projections and head in bfloat16; on a GPU those of the scan as well, and what passes between kernels (MixerOptions.bf16Scan).
   * Parameters and sums are float32. Default false.
   */
  bf16?: boolean;
  /** Keep only the stream between blocks and compute the rest again for the gradients. Default false. */
  gradient_checkpointing?: boolean;
}

/** Tokens per chunk of the scan on a GPU. */
const GPU_CHUNK = 128;

/** One batch as tensors. */
export interface BatchTensors {
  /** int32 [b, t] */
  ids: tf.Tensor2D;
  /** int32 [b·t] */
  labels: tf.Tensor1D;
  /** [b·t] */
  weights: tf.Tensor1D;
  /** int32 [b, t] */
  segments?: tf.Tensor2D;
}

/** A float32 matrix whose products are made in bfloat16. Its gradient is float32. */
function bf16Matrix(w: tf.Tensor2D): StoredMatrix {
  return { shape: w.shape, apply: (x) => matMulBf16(x, w), rows: (ids) => tf.gather(w, ids) as tf.Tensor2D };
}

/** Weights below a prefix, without it. @param bf16 names of those whose products are made in bfloat16 */
function below(weights: Weights, prefix: string, bf16?: ReadonlySet<string>): Weights {
  const part: Record<string, Weight> = {};
  for (const [name, weight] of Object.entries(weights)) {
    if (!name.startsWith(prefix)) continue;
    part[name.slice(prefix.length)] = bf16?.has(name) && !isStored(weight) ? bf16Matrix(weight as tf.Tensor2D) : weight;
  }
  return part;
}

/** The normed stream [b, t, d] of a batch. */
function hidden(
  target: Trainable,
  trained: Readonly<Record<string, tf.Tensor>>,
  frozen: Weights,
  batch: BatchTensors,
  options: ObjectiveOptions,
  seed: tf.Tensor1D | undefined,
  grads: boolean,
): tf.Tensor3D {
  const { network } = target;
  const { segments } = batch;
  const bf16 = options.bf16 ? target.matrices : undefined;
  const all = target.compose(trained, frozen, seed);
  // larger chunks mean fewer states, of which memory traffic is made on a GPU
  const scan = onGpu() ? { chunkSize: GPU_CHUNK, bf16Scan: options.bf16 ?? false } : {};
  let h = network.embeddings.forward(batch.ids, below(all, 'backbone.embeddings.')) as tf.Tensor3D;
  network.blocks.forEach((block, i) => {
    const prefix = `backbone.layers.${i}.`;
    if (!(grads && options.gradient_checkpointing)) {
      h = block.forward(h, below(all, prefix, bf16), { segments, ...scan }).y;
      return;
    }
    const names = Object.keys(trained).filter((name) => name.includes(prefix));
    h = recompute(
      (x, ...tensors) => {
        const own = { ...trained, ...Object.fromEntries(names.map((name, k) => [name, tensors[k]!])) };
        return block.forward(x as tf.Tensor3D, below(target.compose(own, frozen, seed), prefix, bf16), {
          segments,
          ...scan,
        }).y;
      },
      [h, ...names.map((name) => trained[name]!)],
    ) as tf.Tensor3D;
  });
  return network.norm_f.forward(h, below(all, 'backbone.norm_f.')) as tf.Tensor3D;
}

/**
 * The loss of a batch, summed over the positions that count.
 * @param trained tensors under the names of target.trainable() @param grads whether gradients will be taken
 * @returns scalar
 */
export function lossSum(
  target: Trainable,
  trained: Readonly<Record<string, tf.Tensor>>,
  frozen: Weights,
  batch: BatchTensors,
  options: ObjectiveOptions & { seed?: tf.Tensor1D; grads?: boolean } = {},
): tf.Scalar {
  const { seed, grads = true } = options;
  const h = hidden(target, trained, frozen, batch, options, seed, grads);
  const flat = tf.reshape(h, [-1, h.shape[2]]) as tf.Tensor2D;
  const name = target.network.lm_head ? 'lm_head.weight' : 'backbone.embeddings.weight';
  const head = target.compose(trained, frozen, seed)[name]!;
  if (!grads) return crossEntropySum(flat, head, batch.labels, batch.weights);
  const used = options.bf16 && !isStored(head) ? bf16Matrix(head as tf.Tensor2D) : head;
  return fusedCrossEntropy(flat, used, batch.labels, batch.weights, name in trained);
}

/** The summed loss and its gradients, in the order of `names`. */
export function lossAndGradients(
  target: Trainable,
  names: readonly string[],
  tensors: readonly tf.Tensor[],
  frozen: Weights,
  batch: BatchTensors,
  options: ObjectiveOptions & { seed?: tf.Tensor1D } = {},
): { loss: tf.Scalar; gradients: tf.Tensor[] } {
  const f = (...xs: tf.Tensor[]): tf.Scalar =>
    lossSum(target, Object.fromEntries(names.map((name, i) => [name, xs[i]!])), frozen, batch, options);
  const { value, grads } = tf.valueAndGrads(f)([...tensors]);
  return { loss: value as tf.Scalar, gradients: grads };
}
