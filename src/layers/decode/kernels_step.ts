/** What is between the projections of a decoding step of several rows, by kernels of our own. */
import * as tf from '@tensorflow/tfjs';
import { separateEpilogue, ssmStep } from '../../kernels/index.js';
import { silu } from '../activations.js';
import type { MixerState } from '../mixer.js';
import type { MixerSpec } from '../mixer_spec.js';
import { ssdAdvance } from '../ssd.js';
import { tensor, type Weights } from '../weights.js';
import { epilogueInputs, type StoredState, storedState } from './kernel_inputs.js';

/**
 * From the input projection to what the gated norm takes. Null where there are no such kernels.
 * @param projected z | x | B | C | dt, [b, projSize] @param mask [b, 1], 0 for rows that keep their state
 * @returns (y + D·x)·silu(z), [b, innerSize], and the new state
 */
export function kernelsStep(
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
    ...epilogueInputs(spec, weights, context),
    raw: projected,
    ALog: tensor(weights, 'A_log'),
    mask: mask && tf.reshape(mask, [b]),
  }); // x | B | C | dt | decay, [b, convSize + 2·h]
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
  const skipped = tf.add(y, tf.mul(heads, tf.reshape(D, [1, h, 1]))); // [b, h, p]
  const z = tf.slice(projected, [0, 0], [b, innerSize]);
  return { gated: tf.mul(tf.reshape(skipped, [b, innerSize]), silu(z)), state: { ssm: state } };
}
