/** Products of many small matrices in bfloat16, for GPUs: half the memory traffic of float32, and their matrix units are made for it. */
import * as tf from '@tensorflow/tfjs';
import { compilesWithXla } from '../trace/backend.js';
import { attr, dtypeAttr, rawOp } from './raw_op.js';
import { castFloat32, castTo } from './element_types.js';

/** How one product is made. */
export interface BatchMatMulOptions {
  /** The first operand is [m, s, q]. */
  transposeA?: boolean;
  /** The second operand is [m, p, s]. */
  transposeB?: boolean;
  /** Sums stay in float32, in memory too. Default false: they are rounded to bfloat16. */
  float32Output?: boolean;
}

function product(
  a: tf.Tensor,
  b: tf.Tensor,
  transposeA: boolean,
  transposeB: boolean,
  float32Output = false,
): tf.Tensor {
  return tf.tidy(() => {
    const flags = { adj_x: attr.bool(transposeA), adj_y: attr.bool(transposeB) };
    const rounded = [castTo(a, 'bfloat16'), castTo(b, 'bfloat16')];
    if (float32Output) {
      // TensorFlow by itself has no kernel of that kind
      if (compilesWithXla()) return rawOp('BatchMatMulV3', rounded, { ...flags, Tout: dtypeAttr('float32') })[0]!;
      const [x, y] = rounded.map(castFloat32) as [tf.Tensor, tf.Tensor];
      return tf.matMul(x, y, transposeA, transposeB);
    }
    return castFloat32(rawOp('BatchMatMulV2', rounded, flags)[0]!);
  });
}

/**
 * a·b, float32 in and out: both are rounded to bfloat16, products are summed in float32 and the sum is rounded to bfloat16, unless the
 * output is to be float32. Gradients for both, made the same way and rounded. Traced code, and eagerly on the tensorflow backend.
 * @param a [m, q, s] @param b [m, s, p] @returns [m, q, p]
 */
export function batchMatMulBf16(a: tf.Tensor3D, b: tf.Tensor3D, options: BatchMatMulOptions = {}): tf.Tensor3D {
  const { transposeA = false, transposeB = false, float32Output = false } = options;
  return tf.customGrad((x, y, save) => {
    (save as (tensors: tf.Tensor[]) => void)([x as tf.Tensor, y as tf.Tensor]);
    return {
      value: product(x as tf.Tensor, y as tf.Tensor, transposeA, transposeB, float32Output),
      gradFunc: (dy: tf.Tensor, [left, right]: tf.Tensor[]) => [
        transposeA ? product(right!, dy, transposeB, true) : product(dy, right!, false, !transposeB),
        transposeB ? product(dy, left!, true, transposeA) : product(left!, dy, !transposeA, false),
      ],
    };
  })(a, b) as tf.Tensor3D;
}
