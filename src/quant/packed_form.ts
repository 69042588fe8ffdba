/** What the packed forms share. */
import * as tf from '@tensorflow/tfjs';
import { encodeFloat32 } from '../base/stored_dtypes.js';
import type { StoredMatrix } from '../layers/weights.js';
import type { QuantizedMatrix } from './quantize.js';

/** [rows, columns] to [columns, rows] */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let c = 0; c < columns; c++) for (let r = 0; r < rows; r++) out[c * rows + r] = values[r * columns + c]!;
  return out;
}

/** Scales or zeros in their type on disk; in bfloat16 nothing is lost, as they are such numbers. */
export function storedLevels(values: Float32Array, dtype: QuantizedMatrix['scaleDtype']): ArrayBufferView {
  return dtype === 'bfloat16' ? new Uint16Array(encodeFloat32(values, 'BF16').buffer) : values;
}

/** A packed form over traced variables. */
export interface PackedForm {
  /** x [m, in] -> x·Wᵀ [m, out] */
  apply(x: tf.Tensor2D): tf.Tensor2D;
  /** W [out, in] in float32; asked for in the backward pass alone */
  dense(): tf.Tensor2D;
  /** Rows of W by number, [m] -> [m, in] */
  rows(ids: tf.Tensor1D): tf.Tensor2D;
}

/** A packed form as the layers see it: its product has the gradient dy·W for x, and the codes are constants. */
export function packedMatrix(shape: readonly number[], form: PackedForm): StoredMatrix {
  return {
    shape,
    apply: (x) =>
      tf.customGrad((input: unknown) => ({
        value: form.apply(input as tf.Tensor2D),
        gradFunc: (dy: tf.Tensor) => tf.matMul(dy as tf.Tensor2D, form.dense()),
      }))(x) as tf.Tensor2D,
    rows: (ids) => form.rows(ids),
  };
}
