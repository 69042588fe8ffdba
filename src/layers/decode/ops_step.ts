/** What is between the projections of a decoding step, by the layers' own ops. */
import * as tf from '@tensorflow/tfjs';
import { silu, siluQuotient, stepSizes } from '../activations.js';
import type { MixerSpec } from '../mixer_spec.js';
import { ssdStep } from '../ssd.js';
import { tensor, type Weights } from '../weights.js';

/** What a step has once the input projection is split and convolved. */
export interface StepInputs {
  /** [b, 1, innerSize] */
  z: tf.Tensor;
  /** After the convolution, [b, 1, convSize] */
  convolved: tf.Tensor;
  /** [b, 1, h] */
  rawDt: tf.Tensor;
  /** [b, h, p, n] */
  ssm: tf.Tensor4D;
  /** [b, 1, 1] */
  mask?: tf.Tensor;
}

/**
 * SiLU and step sizes as a single elementwise pass over the channels x | B | C | dt. Compiled for a GPU, where a small kernel costs as much
 * as a large one, this is one kernel with the convolution before it instead of two.
 */
function mergedActivations(spec: MixerSpec, convolved: tf.Tensor, raw: tf.Tensor): [xBC: tf.Tensor, dt: tf.Tensor] {
  const { convSize, numHeads: h } = spec;
  const all = tf.concat([convolved, raw], 2); // [b, 1, convSize + h]
  const channels = tf.reshape(tf.range(0, convSize + h, 1, 'float32'), [1, 1, convSize + h]);
  const activated = tf.where(tf.less(channels, convSize), siluQuotient(all), stepSizes(all, spec.timeStepLimit));
  return tf.split(activated, [convSize, h], 2) as [tf.Tensor, tf.Tensor];
}

/**
 * @param merged activations in one pass, see mergedActivations
 * @returns (y + D·x)·silu(z), [b, 1, innerSize], and the new state
 */
export function opsStep(
  spec: MixerSpec,
  weights: Weights,
  { z, convolved, rawDt, ssm, mask }: StepInputs,
  merged: boolean,
): { gated: tf.Tensor; state: { ssm: tf.Tensor4D } } {
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n, innerSize } = spec;
  const b = z.shape[0];
  const raw = tf.add(rawDt, tensor(weights, 'dt_bias'));
  const [xBC, open] = merged
    ? mergedActivations(spec, convolved, raw)
    : [siluQuotient(convolved), stepSizes(raw, spec.timeStepLimit)];
  const dt = mask ? tf.mul(open, mask) : open; // [b, 1, h]
  const [x, B, C] = tf.split(xBC, [innerSize, g * n, g * n], 2) as [tf.Tensor, tf.Tensor, tf.Tensor];
  const { y, state } = ssdStep({
    x: tf.reshape(x, [b, h, p]),
    dt: tf.reshape(dt, [b, h]),
    A: tf.neg(tf.exp(tensor(weights, 'A_log'))) as tf.Tensor1D,
    B: tf.reshape(B, [b, g, n]),
    C: tf.reshape(C, [b, g, n]),
    state: ssm,
  });
  const heads = tf.reshape(x, [b, 1, h, p]);
  const skip = tf.mul(heads, tf.reshape(tensor(weights, 'D'), [1, 1, h, 1]));
  const skipped = tf.reshape(tf.add(tf.reshape(y, [b, 1, h, p]), skip), [b, 1, innerSize]);
  return { gated: tf.mul(skipped, silu(z)), state: { ssm: state } };
}
