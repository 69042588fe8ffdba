/** What a training step differentiates: the summed loss of a batch as a pure function of the trained tensors. */
import * as tf from '@tensorflow/tfjs';
import { atOnce, type Pieces } from '../base/pieces.js';
import { headWeight, hiddenOf, type HiddenOptions } from '../engine/recurrent_lm.js';
import { matMulBf16, outlineBorder } from '../jit/index.js';
import { isStored, type StoredMatrix, type Weight, type Weights } from '../layers/index.js';
import { onGpu } from '../runtime/index.js';
import { crossEntropySum, fusedCrossEntropy } from './fused_loss.js';
import { valueAndGradients } from './gradients.js';
import { recompute } from './recompute.js';
import type { Trainable } from './trainable.js';

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

/** Weights with those of the given names, where they are tensors, as matrices of bfloat16 products. */
function inBf16(weights: Weights, names: ReadonlySet<string>): Weights {
  const entries = Object.entries(weights).map(([name, weight]): [string, Weight] => [
    name,
    names.has(name) && !isStored(weight) ? bf16Matrix(weight as tf.Tensor2D) : weight,
  ]);
  return Object.fromEntries(entries);
}

/** Runs a block so that only the stream and the tensors trained in it are kept; the rest is computed again for the gradients. */
function recomputed(
  target: Trainable,
  trained: Readonly<Record<string, tf.Tensor>>,
  compose: (trained: Readonly<Record<string, tf.Tensor>>) => Weights,
): NonNullable<HiddenOptions['aroundBlock']> {
  const targets = target.targets();
  return (run, h, prefix) => {
    const names = Object.keys(trained).filter((name) => targets.get(name)!.startsWith(prefix));
    return recompute(
      (x, ...tensors) => {
        const own = Object.fromEntries(names.map((name, k) => [name, tensors[k]!]));
        return run(x as tf.Tensor3D, compose({ ...trained, ...own }));
      },
      [h, ...names.map((name) => trained[name]!)],
    ) as tf.Tensor3D;
  };
}

/**
 * The loss of a batch, summed over the positions that count.
 * @param trained tensors under the names of target.trainable() @param grads whether gradients will be taken
 * @returns scalar
 */
export function lossSum(...args: LossArguments): tf.Scalar {
  return atOnce(lossInPieces(...args));
}

type LossArguments = [
  target: Trainable,
  trained: Readonly<Record<string, tf.Tensor>>,
  frozen: Weights,
  batch: BatchTensors,
  options?: ObjectiveOptions & { seed?: tf.Tensor1D; grads?: boolean },
];

/** As lossSum(), with a yield between layers. */
export function* lossInPieces(...[target, trained, frozen, batch, options = {}]: LossArguments): Pieces<tf.Scalar> {
  const { seed, grads = true } = options;
  const { network } = target;
  const bf16 = options.bf16 ?? false;
  const compose = (tensors: Readonly<Record<string, tf.Tensor>>): Weights => target.compose(tensors, frozen, seed);
  const forProducts = (weights: Weights): Weights => (bf16 ? inBf16(weights, target.matrices) : weights);
  const weights = compose(trained);
  const { h } = yield* hiddenOf(network, forProducts(weights), network.embed(weights, batch.ids), {
    segments: batch.segments,
    // larger chunks mean fewer states, of which memory traffic is made on a GPU
    ...(onGpu() && { chunkSize: GPU_CHUNK, bf16Scan: bf16 }),
    ...(grads &&
      options.gradient_checkpointing && {
        aroundBlock: recomputed(target, trained, (tensors) => forProducts(compose(tensors))),
        // blocks are functions of their own, there and back: equal ones are compiled once
        between: (h) => outlineBorder(h, true),
      }),
  });
  yield;
  const flat = tf.reshape(h, [-1, h.shape[2]]) as tf.Tensor2D;
  const name = headWeight(network);
  const head = weights[name]!;
  if (!grads) return crossEntropySum(flat, head, batch.labels, batch.weights);
  const used = bf16 && !isStored(head) ? bf16Matrix(head as tf.Tensor2D) : head;
  return fusedCrossEntropy(flat, used, batch.labels, batch.weights, name in trained);
}

/** The summed loss and its gradients, in the order of `names`. A yield between layers there, and between ops back; see valueAndGradients(). */
export function* lossAndGradients(
  target: Trainable,
  names: readonly string[],
  tensors: readonly tf.Tensor[],
  frozen: Weights,
  batch: BatchTensors,
  options: ObjectiveOptions & { seed?: tf.Tensor1D } = {},
): Pieces<{ loss: tf.Scalar; gradients: tf.Tensor[] }> {
  const trained = Object.fromEntries(names.map((name, i) => [name, tensors[i]!]));
  const f = (): Pieces<tf.Scalar> => lossInPieces(target, trained, frozen, batch, options);
  const { value, gradients } = yield* valueAndGradients(f, tensors);
  return { loss: value, gradients };
}
