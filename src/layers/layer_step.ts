/** A decoding step of one row on a GPU as one kernel a layer, or three. States and contexts are updated in place. */
import * as tf from '@tensorflow/tfjs';
import { layerStep, rowStep, stateStep } from '../jit/index.js';
import type { MixerSpec, MixerState } from './mixer.js';
import { activationInputs, type StoredState, storedState } from './step_activations.js';
import { isStored, tensor, type Weights } from './weights.js';

/** What layers hand on. */
export interface LayerCarry {
  /** The stream, [1, d] */
  stream: tf.Tensor2D;
  /** Of all layers, [1, layers, k-1, convSize], moved on for those that are done. */
  context: tf.Tensor4D;
  /** What their barriers count with; the first layer makes it. */
  counters: tf.Tensor | null;
}

/**
 * One layer. Null where there is no such kernel.
 * @param inputNorm weight of the norm before it, [d] @param layer its number among the contexts
 * @param mask [1, 1]: of 0 the row keeps its state
 */
export function mixerLayerStep(
  spec: MixerSpec,
  weights: Weights,
  inputNorm: tf.Tensor,
  carry: LayerCarry,
  state: MixerState,
  layer: number,
  mask?: tf.Tensor2D,
): { carry: LayerCarry; state: StoredState } | null {
  const [first, second] = [weights['in_proj.weight']!, weights['out_proj.weight']!];
  if (spec.useBias || !isStored(first) || !isStored(second) || !first.parts || !second.parts) return null;
  const activations = {
    ...activationInputs(spec, weights, { layers: carry.context, layer }),
    ALog: tensor(weights, 'A_log'),
  };
  const { epsilon, nGroups: groups } = spec;
  const shared = { gamma: inputNorm, epsilon, activations, mask: mask && tf.reshape(mask, [1]) };
  const norm = { gamma: tensor(weights, 'norm.weight'), groups: spec.normGroups === 'full' ? 1 : groups, epsilon };
  const [x, D, before] = [carry.stream, tensor(weights, 'D'), state.stored ?? state.ssm];
  const own = layerStep({
    ...{ x, D, groups, ...shared, first: first.parts, second: second.parts },
    ...{ secondGamma: norm.gamma, normGroups: norm.groups, state: before, counters: carry.counters },
  });
  if (own) {
    const { y, context, counters } = own;
    return { carry: { stream: y, context, counters }, state: storedState(own.state) };
  }
  // three kernels
  const projected = rowStep({ x, ...shared, matrix: first.parts, out: spec.projSize });
  if (!projected) return null;
  const step = stateStep({
    ...{ heads: spec.numHeads, headDim: spec.headDim, groups, stateSize: spec.stateSize, D, state: before },
    step: { values: projected.y, offset: spec.projSize },
    gate: { values: projected.y, offset: 0, activated: true },
  });
  const y = step && second.fused?.({ x: tf.reshape(step.v, [1, spec.innerSize]), norm, residual: x });
  if (!y) return null;
  return { carry: { ...carry, stream: y, context: projected.context }, state: storedState(step.state) };
}
