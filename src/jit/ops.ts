/**
 * Ops that tfjs does not have: element types that tfjs has no name for, and what decoding programs need. Each works in
 * traced code and eagerly on the tensorflow backend.
 */
import type * as tf from '@tensorflow/tfjs';
import { TracingError } from '../errors/index.js';
import type { Dtype } from './types.js';

/** The true element type of a tensor (its `dtype` field says float32 for bfloat16). */
export function trueDtype(_x: tf.Tensor): Dtype {
  throw new TracingError('not built yet');
}

/** Converts to any element type; rounding to bfloat16 is to nearest even. Gradient passes through for float types. */
export function castTo(_x: tf.Tensor, _dtype: Dtype): tf.Tensor {
  throw new TracingError('not built yet');
}

/** Converts to float32; returns a new tensor in any case. */
export function castFloat32(x: tf.Tensor): tf.Tensor {
  return castTo(x, 'float32');
}

/** x [m, k] float32 times w [n, k] (bfloat16) transposed, in bfloat16 with float32 accumulation where the device has it: [m, n] float32. Gradient for x. */
export function matMulBf16(_x: tf.Tensor2D, _w: tf.Tensor): tf.Tensor2D {
  throw new TracingError('not built yet');
}

/** Rows `ids` [m] (int32) of w [v, d], of any dtype, as float32 [m, d]. No gradient for w unless w is float32. */
export function gatherRows(_w: tf.Tensor, _ids: tf.Tensor1D): tf.Tensor2D {
  throw new TracingError('not built yet');
}
