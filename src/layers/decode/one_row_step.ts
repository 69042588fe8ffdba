/** A decoding step of one row on a GPU as few kernels, where the weights' stored forms have them (StoredMatrix.fused). */
import * as tf from '@tensorflow/tfjs';
import { oneRowRecurrence } from './one_row_recurrence.js';
import { movedContext } from '../convolution.js';
import type { MixerOptions, MixerState } from '../mixer.js';
import type { MixerSpec } from '../mixer_spec.js';
import { epilogueInputs } from './kernel_inputs.js';
import { isStored, tensor, type Weights } from '../weights.js';

/**
 * A decoding step of one row on a GPU as three kernels: input projection with norm, convolution and step sizes; state with skip and gate;
 * output projection with its norm and the stream. Null where there are no such kernels.
 * @param u the stream before the norm, [1, 1, d] @param inputNorm weight of the norm
 * @returns the stream after the mixer
 */
export function oneRowStep(
  spec: MixerSpec,
  weights: Weights,
  u: tf.Tensor3D,
  inputNorm: tf.Tensor,
  options: MixerOptions,
): { y: tf.Tensor3D; state: MixerState } | null {
  const { nGroups, innerSize, convSize, epsilon } = spec;
  const { state, mask } = options;
  const [first, second] = [weights['in_proj.weight']!, weights['out_proj.weight']!];
  if (!state?.context || !isStored(first) || !isStored(second)) return null;
  // z | xBC | dt, then xBC | dt activated
  const all = first.fused?.({
    x: u,
    norm: { gamma: inputNorm, groups: 1, epsilon },
    epilogue: { ...epilogueInputs(spec, weights, state.context), ALog: tensor(weights, 'A_log') },
  });
  if (!all) return null;
  const { gated, state: ssm } = oneRowRecurrence(spec, weights, all, state.ssm, mask);
  const y = second.fused?.({
    x: gated,
    norm: { gamma: tensor(weights, 'norm.weight'), groups: spec.normGroups === 'full' ? 1 : nGroups, epsilon },
    residual: u,
  });
  if (!y) return null;
  const newest = tf.reshape(tf.slice(all, [0, innerSize], [1, convSize]), [1, 1, convSize]);
  return { y: tf.reshape(y, u.shape), state: { conv: movedContext(state.conv, newest as tf.Tensor3D, mask), ssm } };
}
