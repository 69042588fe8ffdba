/** Values that compiled code computes once. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { jit } from '../../src/jit/index.js';
import { settled, settledTogether } from '../../src/jit/settled.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';

describe('settled values', () => {
  before(() => useBackend('tensorflow'));

  it('are what they were, and gradients pass, eagerly and compiled', () => {
    const f = (x: tf.Tensor): tf.Tensor[] => {
      const y = (a: tf.Tensor): tf.Tensor => tf.mul(settled(tf.exp(a)), a);
      return [y(x), tf.grad(y)(x)];
    };
    const values = [-1, 0, 0.5, 2];
    const want = [values.map((v) => v * Math.exp(v)), values.map((v) => (1 + v) * Math.exp(v))];
    const before = tensorCount();
    tf.tidy(() => {
      const compiled = jit(f);
      const x = tf.tensor1d(values);
      for (const got of [f(x), compiled(x)]) got.forEach((y, i) => expectClose(y, want[i]!, 1e-6));
      compiled.dispose();
    });
    expect(tensorCount()).to.deep.equal(before);
  });

  it('several at a time', () => {
    const compiled = jit((x: tf.Tensor) => {
      const [a, b] = settledTogether([tf.add(x, 1), tf.mul(x, 2)]);
      return [tf.add(a!, b!), a!, b!];
    });
    tf.tidy(() => {
      const got = compiled(tf.tensor1d([1, 2]));
      [
        [4, 7],
        [2, 3],
        [2, 4],
      ].forEach((want, i) => expectClose(got[i]!, want, 0));
    });
    compiled.dispose();
  });
});
