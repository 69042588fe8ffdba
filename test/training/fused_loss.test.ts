/** Head and cross-entropy in chunks of the positions: against the loss of whole logits, and where one chunk does not hold all rows. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { weightedCrossEntropy } from '../../src/layers/cross_entropy.js';
import { chunkLength, crossEntropySum, fusedCrossEntropy } from '../../src/training/fused_loss.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { randomArr, toTensor } from '../support/oracle.js';
import { lcg } from '../support/random.js';

type Loss = (h: tf.Tensor2D, w: tf.Tensor2D, labels: tf.Tensor1D, weights: tf.Tensor1D) => tf.Scalar;

describe('fused head and cross-entropy', () => {
  before(() => useBackend('tensorflow'));

  /** Loss and gradients of h and w. */
  const run = (loss: Loss, h: tf.Tensor, w: tf.Tensor, labels: number[], weights: number[]): tf.Tensor[] => {
    const { value, grads } = tf.valueAndGrads((x, y) =>
      loss(x as tf.Tensor2D, y as tf.Tensor2D, tf.tensor1d(labels, 'int32'), tf.tensor1d(weights)),
    )([h, w]);
    return [value, ...grads];
  };
  const fused: Loss = (h, w, labels, weights) => fusedCrossEntropy(h, w, labels, weights, true);

  it('is the loss of whole logits, with its gradients', () => {
    tf.tidy(() => {
      const random = lcg(3);
      const [h, w] = [toTensor(randomArr(random, [6, 5])), toTensor(randomArr(random, [24, 5]))];
      const [labels, weights] = [
        [0, 23, 7, 7, 1, 12],
        [1, 1, 0, 1, 1, 0],
      ];
      const whole: Loss = (x, y, ids, counts) =>
        weightedCrossEntropy(tf.matMul(x, y, false, true) as tf.Tensor2D, ids, counts);
      const want = run(whole, h, w, labels, weights);
      run(fused, h, w, labels, weights).forEach((got, i) => expectClose(got, want[i]!, 1e-5, ['loss', 'dh', 'dw'][i]));
      const plain = crossEntropySum(
        h as tf.Tensor2D,
        w as tf.Tensor2D,
        tf.tensor1d(labels, 'int32'),
        tf.tensor1d(weights),
      );
      expectClose(plain, want[0]!, 1e-5, 'without gradients');
    });
  });

  it('adds up over chunks of uneven lengths what loops in double precision give', () => {
    const [rows, vocabulary] = [17_000, 4096];
    const length = chunkLength(rows, vocabulary);
    expect(Math.ceil(rows / length)).to.be.above(1);
    expect(rows % length, 'a last chunk that is shorter').to.be.above(0);
    const random = lcg(5);
    const h = Float32Array.from({ length: rows }, () => 2 * random() - 1);
    const w = Float32Array.from({ length: vocabulary }, () => 2 * random() - 1);
    const labels = Array.from({ length: rows }, (_, i) => (i * 1001) % vocabulary);
    const weights = labels.map((_, i) => Number(i % 5 !== 4));
    let mean = 0;
    const [dh, dw] = [new Float64Array(rows), new Float64Array(vocabulary)];
    const exponentials = new Float64Array(vocabulary);
    for (let i = 0; i < rows; i++) {
      if (weights[i] === 0) continue;
      let sum = 0;
      for (let j = 0; j < vocabulary; j++) sum += exponentials[j] = Math.exp(h[i]! * w[j]!);
      mean += (Math.log(sum) - h[i]! * w[labels[i]!]!) / rows;
      for (let j = 0; j < vocabulary; j++) {
        const p = exponentials[j]! / sum - Number(j === labels[i]);
        dh[i]! += p * w[j]!;
        dw[j]! += p * h[i]!;
      }
    }
    tf.tidy(() => {
      const got = run(fused, tf.tensor2d(h, [rows, 1]), tf.tensor2d(w, [vocabulary, 1]), labels, weights);
      expectClose(tf.div(got[0]!, rows), [mean], 1e-5 * mean, 'loss');
      expectClose(got[1]!, dh, 1e-5, 'dh');
      expectClose(got[2]!, dw, 1e-4, 'dw');
    });
  });
});
