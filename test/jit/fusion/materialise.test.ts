/** Values that compiled code computes once. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { jit } from '../../../src/jit/index.js';
import { materialise } from '../../../src/jit/fusion/materialise.js';
import { tensorCount, useBackend } from '../../support/backends.js';

describe('materialised values', () => {
  before(() => useBackend('tensorflow'));

  const values = [-1, 0, 0.1, 3.0000002, 1e-40, 3e38, Infinity, NaN];
  const f = (x: tf.Tensor, witness: tf.Tensor): tf.Tensor[] => {
    const y = (a: tf.Tensor): tf.Tensor => materialise(tf.mul(a, 0.5), witness, true);
    return [y(x), tf.grads(y)([x], tf.mul(x, 3))[0]!];
  };

  for (const first of [-2, 0, 5, Infinity, NaN]) {
    it(`are what they were to the bit, and so are gradients, beside a witness of ${first}`, () => {
      const before = tensorCount();
      const compiled = jit(f);
      tf.tidy(() => {
        const [x, witness] = [tf.tensor1d(values), tf.tensor2d([[first, 1]])];
        const want = [tf.mul(x, 0.5), tf.mul(tf.mul(x, 3), 0.5)];
        for (const got of [f(x, witness), compiled(x, witness)])
          got.forEach((y, i) => expect(y.dataSync()).to.deep.equal(want[i]!.dataSync()));
      });
      compiled.dispose();
      expect(tensorCount()).to.deep.equal(before);
    });
  }
});
