/**
 * A decoding step of a few rows on a GPU as three kernels a layer: input projection with norm, convolution and step sizes; recurrence
 * with skip and gate; output projection with its norm, the stream and what the next layer takes. States and contexts are updated in place.
 */
import * as tf from '@tensorflow/tfjs';
import { type FewRows, packRows, rowLayout, ssmStep } from '../../kernels/index.js';
import type { MixerState } from '../mixer.js';
import type { MixerSpec } from '../mixer_spec.js';
import { rmsNormByGroups } from '../rms_norm_gated.js';
import { isStored, tensor, type Weights } from '../weights.js';
import { stepPaths } from './choose.js';
import { epilogueInputs, type StoredState, storedState } from './kernel_inputs.js';

/** A block as such a step takes it. */
export interface StepBlock {
  spec: MixerSpec;
  /** Weight of the norm before the mixer, [d] */
  gamma: tf.Tensor;
  /** Weights of the mixer */
  weights: Weights;
}

/** What a network is asked for. */
export interface NetworkStep {
  /** One of each block */
  states?: readonly MixerState[];
  /** [b, 1], 0 for rows that keep their state */
  mask?: tf.Tensor2D;
  mergeStep?: boolean;
  /** What is handed on passes through it before each block. */
  between?: <T extends tf.Tensor>(x: T) => T;
}

/** What layers hand on. */
interface Carry {
  /** The stream, [b, d] */
  stream: tf.Tensor2D;
  /** It times the weight of the norm of what takes it next, and sums of its squares. */
  rows: FewRows;
  /** Contexts of all layers, [b, layers, k-1, convSize], moved on for those that are done. */
  context: tf.Tensor4D;
}

/**
 * All blocks of a network. Null where they do not all have such kernels.
 * @param lastGamma weight of the norm after the last block, [d] @param embedded [b, 1, d]
 * @returns the stream [b, 1, d], states, and the stream as the head's kernel takes it
 */
export function fewRowsStep(
  blocks: readonly StepBlock[],
  lastGamma: tf.Tensor,
  embedded: tf.Tensor3D,
  { states, mask, mergeStep, between }: NetworkStep,
): { h: tf.Tensor3D; states: MixerState[]; rows: FewRows } | null {
  const [b, t, d] = embedded.shape;
  const all = blocks.every(({ spec, weights }, i) => {
    const paths = stepPaths(spec, weights, { rows: b, tokens: t, state: states?.[i], mergeStep });
    return paths[0] === 'few_rows';
  });
  const context = states?.[0]?.context?.layers;
  if (!all || !states || !context) return null;
  const norms = [...blocks.map(({ gamma }) => gamma), lastGamma];
  let carry = firstCarry(tf.reshape(embedded, [b, d]), norms[0]!, context);
  const after: MixerState[] = [];
  for (const [i, { spec, weights }] of blocks.entries()) {
    if (between) carry = { ...carry, stream: between(carry.stream), rows: passed(carry.rows, between) };
    const out = blockStep(spec, weights, carry, states[i]!, i, norms[i + 1]!, mask);
    if (!out) return null;
    carry = out.carry;
    after.push({ conv: states[i]!.conv, ...out.state });
  }
  // the contexts of all layers were moved on together
  const moved = after.map((state, layer) => ({ ...state, context: { layers: carry.context, layer } }));
  return { h: tf.reshape(carry.stream, [b, 1, d]), states: moved, rows: carry.rows };
}

function passed({ values, squares }: FewRows, between: NonNullable<NetworkStep['between']>): FewRows {
  return { values: between(values), ...(squares && { squares: between(squares) }) };
}

/** Before the first layer. @param embedded [b, d] @param gamma weight of the first norm @param context see Carry */
function firstCarry(embedded: tf.Tensor2D, gamma: tf.Tensor, context: tf.Tensor4D): Carry {
  const squares = tf.sum(tf.square(embedded), 1, true) as tf.Tensor2D;
  return { stream: embedded, rows: { values: packRows(tf.mul(embedded, gamma)), squares }, context };
}

/**
 * One layer. Null where there are no such kernels.
 * @param layer its number among the contexts @param nextGamma weight of the norm that follows the layer, [d]
 * @param mask [b, 1], 0 for rows that keep their state
 */
function blockStep(
  spec: MixerSpec,
  weights: Weights,
  carry: Carry,
  state: MixerState,
  layer: number,
  nextGamma: tf.Tensor,
  mask?: tf.Tensor2D,
): { carry: Carry; state: StoredState } | null {
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n, innerSize, epsilon } = spec;
  const [first, second] = [weights['in_proj.weight']!, weights['out_proj.weight']!];
  if (!isStored(first) || !isStored(second)) return null;
  const b = carry.stream.shape[0];
  const projected = first.batch?.({
    rows: carry.rows,
    epsilon,
    epilogue: {
      ...epilogueInputs(spec, weights, { layers: carry.context, layer }),
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
  const out = second.batch?.({
    rows,
    epsilon,
    residual: { stream: carry.stream, gamma: nextGamma },
  });
  if (!out) return null;
  return {
    carry: { stream: out.y, rows: out.next!, context: projected.context! },
    state: storedState(own.state),
  };
}
