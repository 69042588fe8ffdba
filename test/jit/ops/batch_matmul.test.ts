import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { batchMatMulBf16, jit } from '../../../src/jit/index.js';
import { useBackend } from '../../support/backends.js';

/** Numbers that bfloat16 holds, so that products are exact in float32. */
const exact = (shape: [number, number, number], seed: number): tf.Tensor3D =>
  tf.tensor3d(
    Array.from({ length: shape[0] * shape[1] * shape[2] }, (_, i) => (((i + 1) * seed) % 17) / 8 - 1),
    shape,
  );

describe('batchMatMulBf16', () => {
  before(() => useBackend('tensorflow'));

  for (const [transposeA, transposeB] of [
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ] as const)
    for (const float32Output of [false, true])
      it(`multiplies as matMul does what bfloat16 holds, gradients too: ${JSON.stringify({ transposeA, transposeB, float32Output })}`, async () => {
        const a = exact(transposeA ? [3, 5, 4] : [3, 4, 5], 7);
        const b = exact(transposeB ? [3, 2, 5] : [3, 5, 2], 11);
        const dy = exact([3, 4, 2], 5);
        const plain = (x: tf.Tensor, y: tf.Tensor): tf.Tensor => tf.matMul(x, y, transposeA, transposeB);
        const narrow = (x: tf.Tensor, y: tf.Tensor): tf.Tensor =>
          batchMatMulBf16(x as tf.Tensor3D, y as tf.Tensor3D, { transposeA, transposeB, float32Output });
        const both =
          (f: typeof plain) =>
          (...[x, y, d]: tf.Tensor[]): tf.Tensor[] => [f(x!, y!), ...tf.grads(f)([x!, y!], d)];
        const given = [a, b, dy];
        const want = both(plain)(...given);
        const compiled = await (jit(both(narrow) as never) as unknown as (...x: tf.Tensor[]) => Promise<tf.Tensor[]>)(
          ...given,
        );
        for (const got of [both(narrow)(...given), compiled])
          for (const [i, tensor] of want.entries()) {
            const [x, y] = [await tensor.data(), await got[i]!.data()];
            // the sum alone is rounded, unless it is to stay float32Output
            const rounding = float32Output && i === 0 ? 0 : 2 ** -8;
            x.forEach((v, k) => expect(y[k], `${i}: ${k}`).to.be.closeTo(v, Math.abs(v) * rounding));
          }
      });

  it('rounds to bfloat16', async () => {
    const a = tf.tensor3d([1 + 2 ** -10], [1, 1, 1]);
    expect([...(await batchMatMulBf16(a, tf.ones([1, 1, 1])).data())]).to.deep.equal([1]);
  });
});
