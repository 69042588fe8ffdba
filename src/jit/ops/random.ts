/** Random numbers as pure functions of a seed. */
import * as tf from '@tensorflow/tfjs';
import { dtypeAttr, rawOp } from './raw_op.js';

/**
 * Uniform random numbers in [minimum, maximum), a pure function of the seed (counter-based generator).
 * @param seed int32 [2]
 * @example statelessUniform([2, 3], tf.tensor1d([42, 0], 'int32'), -1, 1); // the same six numbers for this seed
 */
export function statelessUniform(shape: readonly number[], seed: tf.Tensor, minimum = 0, maximum = 1): tf.Tensor {
  return tf.tidy(() => {
    const unit = rawOp('StatelessRandomUniform', [tf.tensor1d([...shape], 'int32'), seed], {
      dtype: dtypeAttr('float32'),
    })[0]!;
    return minimum === 0 && maximum === 1 ? unit : tf.add(tf.mul(unit, maximum - minimum), minimum);
  });
}

/** Normal random numbers, a pure function of the seed. @param seed int32 [2] */
export function statelessNormal(shape: readonly number[], seed: tf.Tensor, mean = 0, deviation = 1): tf.Tensor {
  return tf.tidy(() => {
    const unit = rawOp('StatelessRandomNormal', [tf.tensor1d([...shape], 'int32'), seed], {
      dtype: dtypeAttr('float32'),
    })[0]!;
    return mean === 0 && deviation === 1 ? unit : tf.add(tf.mul(unit, deviation), mean);
  });
}
