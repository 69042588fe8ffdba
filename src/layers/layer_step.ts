/** A decoding step of one row on a GPU as one kernel a layer. States and contexts are updated in place. */
import * as tf from '@tensorflow/tfjs';
import { layerStep } from '../jit/index.js';
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
  const own = layerStep({
    x: carry.stream,
    gamma: inputNorm,
    secondGamma: tensor(weights, 'norm.weight'),
    normGroups: spec.normGroups === 'full' ? 1 : spec.nGroups,
    epsilon: spec.epsilon,
    first: first.parts,
    second: second.parts,
    activations: {
      ...activationInputs(spec, weights, { layers: carry.context, layer }),
      ALog: tensor(weights, 'A_log'),
    },
    D: tensor(weights, 'D'),
    state: state.stored ?? state.ssm,
    groups: spec.nGroups,
    mask: mask && tf.reshape(mask, [1]),
    counters: carry.counters,
  });
  if (!own) return null;
  const { y, context, counters } = own;
  return { carry: { stream: y, context, counters }, state: storedState(own.state) };
}
