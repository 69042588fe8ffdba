/** Gradients in pieces against those of tfjs, and what is left of them where they fail. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { TrainingError } from '../../src/base/errors.js';
import { atOnce, engineState, inPieces, PIECE_MS, type Pieces } from '../../src/base/pieces.js';
import { valueAndGradients } from '../../src/training/gradients.js';
import { onBackends, tensorCount } from '../support/backends.js';
import { rejection } from '../support/errors.js';

function work(): void {
  const end = performance.now() + PIECE_MS + 1;
  while (performance.now() < end);
}

/** A loss in which x is used several times, y once, and a constant branch leads nowhere. */
const parts = [
  (x: tf.Tensor, y: tf.Tensor): tf.Tensor => tf.add(tf.mul(x, y), tf.exp(x)),
  (h: tf.Tensor): tf.Tensor => tf.tidy(() => tf.mul(tf.tanh(h), tf.square(h))),
] as const;
const whole = (x: tf.Tensor, y: tf.Tensor): tf.Scalar => tf.sum(tf.mul(parts[1](parts[0](x, y)), x)) as tf.Scalar;
function* inTwo(x: tf.Tensor, y: tf.Tensor): Pieces<tf.Scalar> {
  const h = parts[0](x, y);
  work();
  yield;
  tf.mul(y, 3);
  const out = tf.sum(tf.mul(parts[1](h), x)) as tf.Scalar;
  work();
  yield;
  return out;
}

onBackends(['tensorflow', 'cpu'], 'gradients in pieces', () => {
  it('are those of tf.valueAndGrads, bit for bit, whatever others differentiate meanwhile', async () => {
    const [x, y] = [tf.tensor1d([0.3, -1.2, 2]), tf.tensor1d([1.5, 0.25, -0.75])];
    tf.tidy(() => void whole(x, y)); // the backend has them from here on
    const before = tensorCount();
    const want = tf.valueAndGrads((a: tf.Tensor, b: tf.Tensor) => whole(a, b))([x, y]);
    let rounds = 0;
    const timer = setInterval(() => {
      rounds++;
      const slope = tf.tidy(() =>
        tf
          .grad((z: tf.Tensor) => tf.sum(tf.mul(z, tf.mul(z, x))))(x)
          .dataSync(),
      );
      expect(slope[2]).to.equal(12); // of z³ at 2
    }, 1);
    const got = await inPieces(
      valueAndGradients(() => inTwo(x, y), [x, y]),
      { keeps: ({ value, gradients }) => [value, ...gradients] },
    );
    clearInterval(timer);
    expect(rounds).to.be.greaterThan(0);
    const once = atOnce(valueAndGradients(() => inTwo(x, y), [x, y]));
    for (const { value, gradients } of [got, once]) {
      expect(value.dataSync()).to.deep.equal(want.value.dataSync());
      gradients.forEach((gradient, i) => expect(gradient.dataSync()).to.deep.equal(want.grads[i]!.dataSync()));
    }
    tf.dispose([want.value, want.grads, got.value, got.gradients, once.value, once.gradients]);
    expect(tensorCount()).to.deep.equal(before);
    tf.dispose([x, y]);
  });

  it('leave nothing behind where the loss fails, or does not depend on a tensor', async () => {
    const [x, y] = [tf.tensor1d([1, 2]), tf.tensor1d([3, 4])];
    tf.tidy(() => void whole(x, y));
    const before = [tensorCount(), engineState().scopeStack.length, engineState().gradientDepth];
    const wrong = new Error('wrong on purpose');
    const failing = function* (): Pieces<tf.Scalar> {
      parts[1](parts[0](x, y));
      yield;
      throw wrong;
    };
    expect(await rejection(inPieces(valueAndGradients(failing, [x])))).to.equal(wrong);
    const alone = function* (): Pieces<tf.Scalar> {
      yield;
      return tf.sum(tf.square(x)) as tf.Scalar;
    };
    const error = await rejection(inPieces(valueAndGradients(alone, [x, y])));
    expect(error).to.be.instanceOf(TrainingError);
    expect([tensorCount(), engineState().scopeStack.length, engineState().gradientDepth]).to.deep.equal(before);
    tf.dispose([x, y]);
  });
});
