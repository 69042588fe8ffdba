/**
 * The recurrence of a decoding step of one row on a GPU, between the kernels of its two projections: one more kernel, which XLA makes. Skip
 * and gate are in it, so that the output projection, whose every block reads its whole vector, reads one vector and not three.
 */
import * as tf from '@tensorflow/tfjs';
import type { MixerSpec } from '../mixer_spec.js';
import { tensor, type Weights } from '../weights.js';

/**
 * @param all what an input projection gives: silu(z) | xBC | dt as projected, xBC | dt as activated | decays (see EpilogueSpec)
 * @param ssm the state before, [1, h, p, n]
 * @param mask [1, 1]: 0 leaves the state as it is
 * @returns (y + D·x)·silu(z), [1, innerSize], and the state after
 */
export function oneRowRecurrence(
  spec: MixerSpec,
  weights: Weights,
  all: tf.Tensor2D,
  ssm: tf.Tensor4D,
  mask?: tf.Tensor2D,
): { gated: tf.Tensor2D; state: tf.Tensor4D } {
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n, innerSize, convSize, projSize } = spec;
  const r = h / g;
  const part = (begin: number, shape: number[]): tf.Tensor =>
    tf.reshape(tf.slice(all, [0, begin], [1, shape.reduce((a, b) => a * b, 1)]), shape);
  const x = part(projSize, [g, r, p, 1]);
  const B = part(projSize + innerSize, [g, 1, 1, n]);
  const C = part(projSize + innerSize + g * n, [g, 1, 1, n]);
  const [rawDt, rawDecay] = [projSize + convSize, projSize + convSize + h].map((at) => part(at, [g, r, 1, 1]));
  const moves = mask && tf.greater(tf.reshape(mask, [1, 1, 1, 1]), 0);
  const dt = moves ? tf.where(moves, rawDt!, 0) : rawDt!;
  const decay = moves ? tf.where(moves, rawDecay!, 1) : rawDecay!;
  const gate = part(0, [g, r, p, 1]);
  const S = tf.add(tf.mul(tf.reshape(ssm, [g, r, p, n]), decay), tf.mul(tf.mul(x, dt), B)); // [g, r, p, n]
  // the skip is a part of each of the n terms, and the gate a factor: after the sum they would be another kernel
  const skip = tf.mul(x, tf.mul(tf.reshape(tensor(weights, 'D'), [g, r, 1, 1]), 1 / n));
  const terms = tf.mul(tf.add(tf.mul(S, C), skip), gate);
  // the sum as a product with ones, which XLA turns back into a sum: of one as such it makes a slower kernel
  const gated = tf.matMul(tf.reshape(terms, [g, r * p, n]), tf.ones([g, n, 1]));
  return {
    gated: tf.reshape(gated, [1, innerSize]),
    state: tf.reshape(S, [1, h, p, n]),
  };
}
