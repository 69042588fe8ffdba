/** A decoding step of one row as few kernels, where the weights' stored forms have them (StoredMatrix.fused). */
import * as tf from '@tensorflow/tfjs';
import { tritonRuns } from '../../jit/custom_call/triton.js';
import { type OneRowInputs } from '../../kernels/index.js';
import { oneRowRecurrence } from './one_row_recurrence.js';
import { movedContext } from '../convolution.js';
import type { MixerOptions, MixerState } from '../mixer.js';
import type { MixerSpec } from '../mixer_spec.js';
import { ssdStep } from '../ssd.js';
import { epilogueInputs } from './kernel_inputs.js';
import { isStored, tensor, type Weights } from '../weights.js';

/** What the two projections of a fused step are given besides their matrices. */
function kernelInputs(
  spec: MixerSpec,
  weights: Weights,
  u: tf.Tensor,
  inputNorm: tf.Tensor,
  context: NonNullable<MixerState['context']>,
  gpu: boolean,
): { first: OneRowInputs; second: Omit<OneRowInputs, 'x' | 'gate'> } {
  const { projSize, epsilon } = spec;
  const epilogue = {
    ...epilogueInputs(spec, weights, context),
    ...(gpu && { ALog: tensor(weights, 'A_log') }),
  };
  const groups = spec.normGroups === 'full' ? 1 : spec.nGroups;
  return {
    first: { x: u, norm: { gamma: inputNorm, groups: 1, epsilon }, epilogue },
    second: {
      ...(!gpu && { skip: { d: tensor(weights, 'D'), offset: projSize } }),
      norm: { gamma: tensor(weights, 'norm.weight'), groups, epsilon },
      residual: u,
    },
  };
}

/**
 * A decoding step of one row as three kernels: input projection with norm, convolution and step sizes; state; output projection with
 * skip, gate, norm and the stream. Null where there are no such kernels.
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
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n, innerSize, convSize, projSize } = spec;
  const { state, mask } = options;
  const [first, second] = [weights['in_proj.weight']!, weights['out_proj.weight']!];
  if (!state?.context || !isStored(first) || !isStored(second)) return null;
  const gpu = tritonRuns();
  const inputs = kernelInputs(spec, weights, u, inputNorm, state.context, gpu);
  const all = first.fused?.(inputs.first); // z | xBC | dt, then xBC | dt activated
  if (!all) return null;
  const part = (begin: number, size: number, shape: number[]): tf.Tensor =>
    tf.reshape(tf.slice(all, [0, begin], [1, size]), shape);
  let x: tf.Tensor;
  let ssm: tf.Tensor4D;
  if (gpu) {
    ({ gated: x, state: ssm } = oneRowRecurrence(spec, weights, all, state.ssm, mask));
  } else {
    ({ y: x, state: ssm } = ssdStep({
      x: part(projSize, innerSize, [1, h, p]) as tf.Tensor3D,
      B: part(projSize + innerSize, g * n, [1, g, n]) as tf.Tensor3D,
      C: part(projSize + innerSize + g * n, g * n, [1, g, n]) as tf.Tensor3D,
      dt: part(projSize + convSize, h, [1, h]) as tf.Tensor2D,
      A: tf.neg(tf.exp(tensor(weights, 'A_log'))) as tf.Tensor1D,
      state: state.ssm,
    }));
  }
  const y = second.fused?.({
    ...inputs.second,
    x: tf.reshape(x, [1, innerSize]),
    ...(!gpu && { gate: all }),
  });
  if (!y) return null;
  const newest = part(innerSize, convSize, [1, 1, convSize]);
  return { y: tf.reshape(y, u.shape), state: { conv: movedContext(state.conv, newest as tf.Tensor3D, mask), ssm } };
}
