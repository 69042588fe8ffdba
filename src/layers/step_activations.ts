/**
 * Convolution, activation and step sizes of one token as a single elementwise pass over the channels x | B | C | dt: dt
 * goes along as a channel whose only tap is 1. Compiled for a GPU, where a small kernel costs as much as a large one,
 * this is one kernel instead of two.
 */
import * as tf from '@tensorflow/tfjs';
import { stepValues } from '../jit/index.js';
import type { MixerSpec, MixerState } from './mixer.js';
import { ssdAdvance } from './ssd.js';
import { siluQuotient, tensor, type Weights } from './weights.js';

/**
 * @param raw the projection's channels x | B | C | dt, [b, convSize + h]
 * @param context the k-1 raw inputs before, [b, k-1, convSize]
 * @returns activated x | B | C, [b, convSize], and dt after softplus and limit, [b, h]
 */
export function stepActivations(
  spec: MixerSpec,
  weights: Weights,
  raw: tf.Tensor2D,
  context: tf.Tensor3D,
): { xBC: tf.Tensor2D; dt: tf.Tensor2D } {
  const { convSize: d, convKernel: k, numHeads: h, timeStepLimit: limit } = spec;
  const b = raw.shape[0];
  return tf.tidy(() => {
    const taps = tf.reshape(tensor(weights, 'conv1d.weight'), [d, k]);
    const tap = (i: number): tf.Tensor => tf.reshape(tf.slice(taps, [0, i], [d, 1]), [1, d]);
    const wide = (conv: tf.Tensor, dt: tf.Tensor): tf.Tensor => tf.concat([conv, dt], 1); // [·, d + h]
    let sum = tf.mul(raw, wide(tap(k - 1), tf.ones([1, h])));
    for (let i = 0; i < k - 1; i++) {
      const old = tf.reshape(tf.slice(context, [0, i, 0], [b, 1, d]), [b, d]);
      sum = tf.add(sum, wide(tf.mul(old, tap(i)), tf.zeros([b, h])));
    }
    const bias = spec.useConvBias ? tf.reshape(tensor(weights, 'conv1d.bias'), [1, d]) : tf.zeros([1, d]);
    sum = tf.add(sum, wide(bias, tf.reshape(tensor(weights, 'dt_bias'), [1, h])));
    let steps: tf.Tensor = tf.softplus(sum);
    if (limit[0] > 0) steps = tf.maximum(steps, limit[0]);
    if (Number.isFinite(limit[1])) steps = tf.minimum(steps, limit[1]);
    const channels = tf.reshape(tf.range(0, d + h, 1, 'float32'), [1, d + h]);
    const all = tf.where(tf.less(channels, d), siluQuotient(sum), steps);
    return { xBC: tf.slice(all, [0, 0], [b, d]) as tf.Tensor2D, dt: tf.slice(all, [0, d], [b, h]) as tf.Tensor2D };
  });
}

/** What kernels of our own take for the convolution and the step sizes of a decoding step. @param context see MixerState */
export function activationInputs(spec: MixerSpec, weights: Weights, context: NonNullable<MixerState['context']>) {
  const { innerSize, convSize, convKernel, numHeads } = spec;
  return {
    first: innerSize,
    channels: convSize,
    taps: convKernel,
    heads: numHeads,
    limit: spec.timeStepLimit,
    context: context.layers,
    place: context.layer * (convKernel - 1) * convSize,
    weights: tensor(weights, 'conv1d.weight'),
    bias: spec.useConvBias ? tensor(weights, 'conv1d.bias') : undefined,
    dtBias: tensor(weights, 'dt_bias'),
  };
}

/**
 * A step from the projection to the state's output, its small work by a kernel of our own. Null where there is none.
 * @param projected z | x | B | C | dt, [b, projSize] @param mask [b, 1], 0 for rows that keep their state
 * @returns x and the output y without the D skip, [b, 1, h, p], and the new state
 */
export function stepByKernel(
  spec: MixerSpec,
  weights: Weights,
  projected: tf.Tensor2D,
  { context, ssm }: MixerState,
  mask?: tf.Tensor2D,
): { x: tf.Tensor4D; y: tf.Tensor4D; state: tf.Tensor4D } | null {
  const { innerSize, numHeads: h, headDim: p, nGroups: g, stateSize: n } = spec;
  if (!context) return null;
  const b = projected.shape[0];
  const step = stepValues({
    ...activationInputs(spec, weights, context),
    raw: projected,
    inner: innerSize,
    ALog: tensor(weights, 'A_log'),
    mask: mask && tf.reshape(mask, [b]),
  });
  if (!step) return null;
  const { y, state } = ssdAdvance({
    scaled: tf.reshape(step.scaled, [b, h, p]),
    decay: step.decay,
    B: tf.reshape(step.B, [b, g, n]),
    C: tf.reshape(step.C, [b, g, n]),
    state: ssm,
  });
  return { x: tf.reshape(step.x, [b, 1, h, p]), y: tf.reshape(y, [b, 1, h, p]), state };
}
