/** Products of many small matrices in bfloat16, for GPUs: half the memory traffic of float32, and their matrix units are made for it. */
import * as tf from '@tensorflow/tfjs';
import { attr, castFloat32, castTo, rawOp } from './ops.js';

function product(a: tf.Tensor, b: tf.Tensor, transposeA: boolean, transposeB: boolean): tf.Tensor {
  return tf.tidy(() => {
    const flags = { adj_x: attr.bool(transposeA), adj_y: attr.bool(transposeB) };
    return castFloat32(rawOp('BatchMatMulV2', [castTo(a, 'bfloat16'), castTo(b, 'bfloat16')], flags)[0]!);
  });
}

/**
 * a·b, float32 in and out: both are rounded to bfloat16, products are summed in float32 and the sum is rounded to bfloat16. Gradients for
 * both, made the same way. Traced code, and eagerly on the tensorflow backend.
 * @param a [m, q, s] @param b [m, s, p] @returns [m, q, p]
 */
export function batchMatMulBf16(a: tf.Tensor3D, b: tf.Tensor3D): tf.Tensor3D {
  return tf.customGrad((x, y, save) => {
    (save as (tensors: tf.Tensor[]) => void)([x as tf.Tensor, y as tf.Tensor]);
    return {
      value: product(x as tf.Tensor, y as tf.Tensor, false, false),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => [
        product(dy, saved[1]!, false, true),
        product(saved[0]!, dy, true, false),
      ],
    };
  })(a, b) as tf.Tensor3D;
}
