import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { batchMatMulBf16 } from '../../src/jit/index.js';
import { useBackend } from '../support/backends.js';

/** Numbers that bfloat16 holds, so that products are exact in float32. */
const exact = (shape: [number, number, number], seed: number): tf.Tensor3D =>
  tf.tensor3d(
    Array.from({ length: shape[0] * shape[1] * shape[2] }, (_, i) => (((i + 1) * seed) % 17) / 8 - 1),
    shape,
  );

describe('batchMatMulBf16', () => {
  before(() => useBackend('tensorflow'));

  it('multiplies as matMul does what bfloat16 holds, gradients too', async () => {
    const [a, b, dy] = [exact([3, 4, 5], 7), exact([3, 5, 2], 11), exact([3, 4, 2], 5)];
    const plain = (x: tf.Tensor, y: tf.Tensor): tf.Tensor => tf.matMul(x, y);
    const narrow = (x: tf.Tensor, y: tf.Tensor): tf.Tensor => batchMatMulBf16(x as tf.Tensor3D, y as tf.Tensor3D);
    const [want, got] = [plain, narrow].map((f) => [f(a, b), ...tf.grads(f)([a, b], dy)]) as [tf.Tensor[], tf.Tensor[]];
    for (const [i, tensor] of want.entries()) {
      const [x, y] = [await tensor.data(), await got[i]!.data()];
      // the sum alone is rounded
      x.forEach((v, k) => expect(y[k], `${i}: ${k}`).to.be.closeTo(v, Math.abs(v) * 2 ** -8));
    }
  });

  it('rounds to bfloat16', async () => {
    const a = tf.tensor3d([1 + 2 ** -10], [1, 1, 1]);
    expect([...(await batchMatMulBf16(a, tf.ones([1, 1, 1])).data())]).to.deep.equal([1]);
  });
});
