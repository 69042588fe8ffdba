/** What the packed forms share. */
import * as tf from '@tensorflow/tfjs';

/** [rows, columns] to [columns, rows] */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let c = 0; c < columns; c++) for (let r = 0; r < rows; r++) out[c * rows + r] = values[r * columns + c];
  return out;
}

/**
 * A product x·Wᵀ with the gradient dy·W for x; the codes are constants.
 * @param dense W [out, in], asked for in the backward pass alone
 */
export function differentiable(
  x: tf.Tensor2D,
  product: (x: tf.Tensor2D) => tf.Tensor2D,
  dense: () => tf.Tensor2D,
): tf.Tensor2D {
  return tf.customGrad((input: unknown) => ({
    value: product(input as tf.Tensor2D),
    gradFunc: (dy: tf.Tensor) => tf.matMul(dy as tf.Tensor2D, dense()),
  }))(x) as tf.Tensor2D;
}
