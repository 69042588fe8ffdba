/** Elementwise functions of the mixer: SiLU, and step sizes from what the input projection gives. */
import * as tf from '@tensorflow/tfjs';

/** SiLU, x·sigmoid(x); tfjs has no kernel of that name. */
export function silu(x: tf.Tensor): tf.Tensor {
  return tf.tidy(() => tf.mul(x, tf.sigmoid(x)));
}

/**
 * SiLU as x / (1 + exp(-x)), for decoding. XLA keeps the result of a division where it would compute a product anew for
 * every element that it is broadcast to. Not for gradients: below -88 exp overflows, which only the quotient bears.
 */
export function siluQuotient(x: tf.Tensor): tf.Tensor {
  return tf.tidy(() => tf.div(x, tf.add(tf.exp(tf.neg(x)), 1)));
}

/**
 * Step sizes, clamp(softplus(x)) (spec B.2 step 8); the limit acts in decoding too (D4).
 * @param x raw step sizes with dt_bias added
 */
export function stepSizes(x: tf.Tensor, [low, high]: readonly [number, number]): tf.Tensor {
  return tf.tidy(() => {
    let dt: tf.Tensor = tf.softplus(x);
    if (low > 0) dt = tf.maximum(dt, low);
    return Number.isFinite(high) ? tf.minimum(dt, high) : dt;
  });
}
