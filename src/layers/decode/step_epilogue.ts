/**
 * Convolution, activation and step sizes of one token as a single elementwise pass over the channels x | B | C | dt: dt
 * goes along as a channel whose only tap is 1. Compiled for a GPU, where a small kernel costs as much as a large one,
 * this is one kernel instead of two.
 */
import * as tf from '@tensorflow/tfjs';
import { castFloat32, trueDtype } from '../../jit/index.js';
import { ssmStep, separateEpilogue } from '../../kernels/index.js';
import type { MixerSpec, MixerState } from '../mixer.js';
import { ssdAdvance } from '../ssd.js';
import { silu, siluQuotient, tensor, type Weights } from '../weights.js';

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
 * A step of several rows from the projection to what the gated norm takes, by kernels of our own. Null where there are none.
 * @param projected z | x | B | C | dt, [b, projSize] @param mask [b, 1], 0 for rows that keep their state
 * @returns (y + D·x)·silu(z), [b, innerSize], and the new state
 */
export function stepByKernel(
  spec: MixerSpec,
  weights: Weights,
  projected: tf.Tensor2D,
  { context, ssm, stored }: MixerState,
  mask?: tf.Tensor2D,
): { gated: tf.Tensor2D; state: StoredState } | null {
  const { innerSize, numHeads: h, headDim: p, nGroups: g, stateSize: n } = spec;
  if (!context) return null;
  const b = projected.shape[0];
  const step = separateEpilogue({
    ...activationInputs(spec, weights, context),
    raw: projected,
    ALog: tensor(weights, 'A_log'),
    mask: mask && tf.reshape(mask, [b]),
  });
  if (!step) return null;
  const D = tensor(weights, 'D');
  const own = ssmStep({
    ...{ heads: h, headDim: p, groups: g, stateSize: n, D },
    state: stored ?? ssm,
    step: { values: step, offset: 0 },
    gate: { values: projected, offset: 0, activated: false },
  });
  if (own) return { gated: own.v as tf.Tensor2D, state: storedState(own.state) };
  const sizes = [innerSize, g * n, g * n, h, h];
  const [x, B, C, dt, decay] = tf.split(step, sizes, 1) as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor2D];
  const heads = tf.reshape(x, [b, h, p]);
  const { y, state } = ssdAdvance({
    scaled: tf.mul(heads, tf.reshape(dt, [b, h, 1])),
    decay,
    B: tf.reshape(B, [b, g, n]),
    C: tf.reshape(C, [b, g, n]),
    state: ssm,
  });
  const skipped = tf.add(y, tf.mul(heads, tf.reshape(D, [1, h, 1])));
  const z = tf.slice(projected, [0, 0], [b, innerSize]);
  return { gated: tf.mul(tf.reshape(skipped, [b, innerSize]), silu(z)), state: { ssm: state } };
}

/** A state as a kernel left it: in its stored type, and as the layers see it. */
export type StoredState = Pick<MixerState, 'ssm' | 'stored'>;

export function storedState(state: tf.Tensor): StoredState {
  const narrow = trueDtype(state) === 'bfloat16';
  return narrow ? { ssm: castFloat32(state) as tf.Tensor4D, stored: state } : { ssm: state as tf.Tensor4D };
}
