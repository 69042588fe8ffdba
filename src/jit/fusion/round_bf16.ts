/** Values that pass through memory as bfloat16. */
import * as tf from '@tensorflow/tfjs';
import { compilesWithXla } from '../trace/backend.js';
import { barrier } from './barrier.js';
import { castFloat32, castTo } from '../ops/element_types.js';

/** Rounded, and converted back by whatever reads it: without the barrier XLA would leave out both. */
function rounded(x: tf.Tensor): tf.Tensor {
  return tf.tidy(() => {
    const bf16 = castTo(x, 'bfloat16');
    return castFloat32(compilesWithXla() ? barrier([bf16])[0]! : bf16);
  });
}

/**
 * x rounded to bfloat16, in float32; compiled code has it in memory as bfloat16, which halves what is moved where several kernels read
 * it. The gradient is rounded and kept so, too. Traced code, and eagerly on the tensorflow backend.
 */
export function roundToBf16<T extends tf.Tensor>(x: T): T {
  return tf.customGrad((input: unknown) => ({
    value: rounded(input as tf.Tensor),
    gradFunc: (dy: tf.Tensor) => rounded(dy),
  }))(x) as T;
}
