/**
 * A decoding step of a few rows on a GPU as three kernels a layer: input projection with norm, convolution and step sizes; recurrence
 * with skip and gate; output projection with its norm, the stream and what the next layer takes. States and contexts are updated in place.
 */
import * as tf from '@tensorflow/tfjs';
import { rowLayout, packRows, type FewRows, ssmStep } from '../../kernels/index.js';
import type { MixerSpec, MixerState } from '../mixer.js';
import { rmsNormByGroups } from '../rms_norm_gated.js';
import { activationInputs, type StoredState, storedState } from './step_epilogue.js';
import { isStored, tensor, type Weight, type Weights } from '../weights.js';

/** What layers hand on. */
export interface BatchCarry {
  /** The stream, [b, d] */
  stream: tf.Tensor2D;
  /** It times the weight of the norm of what takes it next, and sums of its squares. */
  rows: FewRows;
  /** Of all layers, [b, layers, k-1, convSize], moved on for those that are done. */
  context: tf.Tensor4D;
}

/** Before the first layer. @param embedded [b, d] @param gamma weight of the first norm @param context see BatchCarry */
export function beginBatch(embedded: tf.Tensor2D, gamma: tf.Tensor, context: tf.Tensor4D): BatchCarry {
  const squares = tf.sum(tf.square(embedded), 1, true) as tf.Tensor2D;
  return {
    stream: embedded,
    rows: { values: packRows(tf.mul(embedded, gamma)), squares },
    context,
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
    epilogue: {
      ...activationInputs(spec, weights, { layers: carry.context, layer }),
      ALog: tensor(weights, 'A_log'),
      mask: mask && tf.reshape(mask, [b]),
    },
  });
  if (!projected) return null;
  const gamma = tensor(weights, 'norm.weight');
  const groups = spec.normGroups === 'full' ? 1 : g;
  const values = projected.y;
  const own = ssmStep({
    ...{ heads: h, headDim: p, groups: g, stateSize: n, D: tensor(weights, 'D') },
    state: state.stored ?? state.ssm,
    step: { values, offset: innerSize },
    gate: { values, offset: 0, activated: true },
    ...(groups === 1 && { norm: { gamma, layout: rowLayout(b) } }),
  });
  if (!own) return null;
  const rows: FewRows =
    groups === 1
      ? { values: own.v, squares: own.squares }
      : { values: packRows(rmsNormByGroups(own.v, gamma, groups, epsilon)) };
  const ended = second.batch?.({
    rows,
    epsilon,
    residual: { stream: carry.stream, gamma: nextGamma },
  });
  if (!ended) return null;
  return {
    carry: { stream: ended.y, rows: ended.next!, context: projected.context! },
    state: storedState(own.state),
  };
}
