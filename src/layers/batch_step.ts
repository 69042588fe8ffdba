/**
 * A decoding step of a few rows on a GPU as three kernels a layer: input projection with norm, convolution and step sizes; recurrence
 * with skip and gate; output projection with its norm, the stream and what the next layer takes. States and contexts are updated in place.
 */
import * as tf from '@tensorflow/tfjs';
import { batchCounters, type BatchRows, castTo, stateStep } from '../jit/index.js';
import type { MixerSpec, MixerState } from './mixer.js';
import { rmsNormByGroups } from './rms_norm_gated.js';
import { activationInputs, type StoredState, storedState } from './step_activations.js';
import { isStored, tensor, type Weight, type Weights } from './weights.js';

/** What layers hand on. */
export interface BatchCarry {
  /** The stream, [b, d] */
  stream: tf.Tensor2D;
  /** It times the weight of the norm of what takes it next, and sums of its squares. */
  rows: BatchRows;
  /** Of all layers, [b, layers, k-1, convSize], moved on for those that are done. */
  context: tf.Tensor4D;
  /** See batchCounters(). */
  counters: tf.Tensor1D;
}

/** x [b, size] as products of a few rows take it, [size/32, b, 32]. */
function piecesOf(x: tf.Tensor): tf.Tensor {
  const [b, size] = x.shape as [number, number];
  return castTo(tf.transpose(tf.reshape(x, [b, size / 32, 32]), [1, 0, 2]), 'bfloat16');
}

/** Before the first layer. @param embedded [b, d] @param gamma weight of the first norm @param context see BatchCarry */
export function beginBatch(embedded: tf.Tensor2D, gamma: tf.Tensor, context: tf.Tensor4D): BatchCarry {
  const squares = tf.sum(tf.square(embedded), 1, true) as tf.Tensor2D;
  return {
    stream: embedded,
    rows: { pieces: piecesOf(tf.mul(embedded, gamma)), squares },
    context,
    counters: batchCounters(),
  };
}

/** Whether a layer may be such kernels, as far as its weights go. */
export function takesBatches(spec: MixerSpec, weights: Weights): boolean {
  const knows = (w: Weight | undefined): boolean => w !== undefined && isStored(w) && w.batch !== undefined;
  return (
    !spec.useBias && spec.hiddenSize % 32 === 0 && knows(weights['in_proj.weight']) && knows(weights['out_proj.weight'])
  );
}

/**
 * One layer. Null where there are no such kernels.
 * @param layer its number among the contexts @param nextGamma weight of the norm that follows the layer, [d]
 * @param mask [b, 1], 0 for rows that keep their state
 */
export function mixerBatchStep(
  spec: MixerSpec,
  weights: Weights,
  carry: BatchCarry,
  state: MixerState,
  layer: number,
  nextGamma: tf.Tensor,
  mask?: tf.Tensor2D,
): { carry: BatchCarry; state: StoredState } | null {
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n, innerSize, epsilon } = spec;
  const [first, second] = [weights['in_proj.weight']!, weights['out_proj.weight']!];
  if (!isStored(first) || !isStored(second)) return null;
  const b = carry.stream.shape[0];
  const projected = first.batch?.({
    rows: carry.rows,
    epsilon,
    counters: carry.counters,
    activations: {
      ...activationInputs(spec, weights, { layers: carry.context, layer }),
      ALog: tensor(weights, 'A_log'),
      mask: mask && tf.reshape(mask, [b]),
    },
  });
  if (!projected) return null;
  const gamma = tensor(weights, 'norm.weight');
  const groups = spec.normGroups === 'full' ? 1 : g;
  const values = projected.y;
  const own = stateStep({
    ...{ heads: h, headDim: p, groups: g, stateSize: n, D: tensor(weights, 'D') },
    state: state.stored ?? state.ssm,
    step: { values, offset: innerSize },
    gate: { values, offset: 0, activated: true },
    ...(groups === 1 && { gamma }),
  });
  if (!own) return null;
  const rows: BatchRows =
    groups === 1
      ? { pieces: own.v, squares: own.squares }
      : { pieces: piecesOf(rmsNormByGroups(own.v, gamma, groups, epsilon)) };
  const ended = second.batch?.({
    rows,
    epsilon,
    counters: projected.counters,
    residual: { stream: carry.stream, gamma: nextGamma },
  });
  if (!ended) return null;
  return {
    carry: { stream: ended.y, rows: ended.next!, context: projected.context!, counters: ended.counters! },
    state: storedState(own.state),
  };
}
