/** A decoding step of one row as few kernels, where the weights' stored forms have them (StoredMatrix.fused). */
import * as tf from '@tensorflow/tfjs';
import { tritonRuns } from '../../jit/custom_call/triton.js';
import { type OneRowInputs } from '../../kernels/index.js';
import { gpuStep } from './ssm_step.js';
import type { MixerOptions, MixerSpec, MixerState } from '../mixer.js';
import { ssdStep } from '../ssd.js';
import { activationInputs } from './step_epilogue.js';
import { isStored, tensor, type Weights } from '../weights.js';

/** What the two projections of a fused step are given besides their matrices. */
function fusedInputs(
  spec: MixerSpec,
  weights: Weights,
  u: tf.Tensor,
  inputNorm: tf.Tensor,
  context: NonNullable<MixerState['context']>,
  gpu: boolean,
): { first: OneRowInputs; second: Omit<OneRowInputs, 'x' | 'gate'> } {
  const { projSize, epsilon } = spec;
  const epilogue = {
    ...activationInputs(spec, weights, context),
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
export function mixerFusedStep(
  spec: MixerSpec,
  weights: Weights,
  u: tf.Tensor3D,
  inputNorm: tf.Tensor,
  options: MixerOptions,
): { y: tf.Tensor3D; state: MixerState } | null {
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n, innerSize, convSize, projSize, convKernel: k } = spec;
  const { state, mask } = options;
  const [first, second] = [weights['in_proj.weight']!, weights['out_proj.weight']!];
  if (options.mergeStep === false || spec.useBias || !state?.context || u.size !== spec.hiddenSize) return null;
  if (!isStored(first) || !isStored(second)) return null;
  const gpu = tritonRuns();
  if (mask && !gpu) return null;
  const inputs = fusedInputs(spec, weights, u, inputNorm, state.context, gpu);
  const all = first.fused?.(inputs.first); // z | xBC | dt, then xBC | dt activated
  if (!all) return null;
  const part = (begin: number, size: number, shape: number[]): tf.Tensor =>
    tf.reshape(tf.slice(all, [0, begin], [1, size]), shape);
  let x: tf.Tensor;
  let ssm: tf.Tensor4D;
  if (gpu) {
    ({ gated: x, state: ssm } = gpuStep(spec, weights, all, state.ssm, mask));
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
  const moved = k > 2 ? tf.concat([tf.slice(state.conv, [0, 1, 0], [1, k - 2, convSize]), newest], 1) : newest;
  const conv = mask ? tf.where(tf.greater(tf.reshape(mask, [1, 1, 1]), 0), moved, state.conv) : moved;
  return { y: tf.reshape(y, u.shape), state: { conv: conv as tf.Tensor3D, ssm } };
}
