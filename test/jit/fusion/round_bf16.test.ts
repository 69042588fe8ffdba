import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { roundToBf16, jit } from '../../../src/jit/index.js';
import { useBackend } from '../../support/backends.js';

/** The nearest numbers of bfloat16, by the bits of float32: to even where two are as near. */
function nearest(x: ArrayLike<number>): number[] {
  const words = new Uint32Array(Float32Array.from(x).buffer);
  const kept = words.map((w) => ((w + 0x7fff + ((w >>> 16) & 1)) >>> 16) << 16);
  return [...new Float32Array(kept.buffer)];
}

describe('roundToBf16', () => {
  before(() => useBackend('tensorflow'));
  const numbers = (seed: number): tf.Tensor1D =>
    tf.tensor1d(Array.from({ length: 64 }, (_, i) => Math.sin(seed + i * 1.7) * 3 ** ((i % 9) - 4)));

  for (const [name, compiled] of [
    ['eagerly', false],
    ['compiled', true],
  ] as const) {
    it(`rounds values and gradients, ${name}`, async () => {
      const [x, dy] = [numbers(1), numbers(2)];
      const both = (v: tf.Tensor1D, d: tf.Tensor1D): tf.Tensor[] => {
        const { value, grad } = tf.valueAndGrad((t) => tf.sum(tf.mul(roundToBf16(t), d)))(v);
        value.dispose();
        // elementwise work before and after, with which compiled code would join the roundings
        return [tf.add(roundToBf16(tf.mul(v, 2)), 0), grad];
      };
      const run = (compiled ? jit(both as never) : both) as (
        ...inputs: tf.Tensor[]
      ) => tf.Tensor[] | Promise<tf.Tensor[]>;
      const [y, grad] = (await run(x, dy)) as [tf.Tensor, tf.Tensor];
      expect([...(await y.data())]).to.deep.equal(nearest(Array.from(await x.data(), (v) => 2 * v)));
      expect([...(await grad.data())]).to.deep.equal(nearest(await dy.data()));
    });
  }
});
