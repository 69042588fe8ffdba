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

  it('adds up over chunks of uneven lengths what its rows give alone', () => {
    const vocabulary = 2 ** 21; // few rows fill a chunk
    const rows = 17;
    const length = chunkLength(rows, vocabulary);
    expect(Math.ceil(rows / length)).to.be.above(1);
    expect(rows % length, 'a last chunk that is shorter').to.be.above(0);
    tf.tidy(() => {
      const random = lcg(5);
      const h = toTensor(randomArr(random, [rows, 1]));
      const w = tf.linspace(-1, 1, vocabulary).reshape([vocabulary, 1]);
      const labels = Array.from({ length: rows }, (_, i) => i * 1001);
      const weights = labels.map((_, i) => Number(i !== 4));
      const [loss, dh, dw] = run(fused, h, w, labels, weights);
      let [sum, dwSum]: [number, tf.Tensor] = [0, tf.zerosLike(w)];
      const dhs: number[] = [];
      for (let i = 0; i < rows; i++) {
        dwSum = tf.tidy(() => {
          const row = run(fused, tf.slice(h, [i, 0], [1, 1]), w, [labels[i]!], [weights[i]!]);
          sum += row[0]!.dataSync()[0]!;
          dhs.push(row[1]!.dataSync()[0]!);
          return tf.add(dwSum, row[2]!);
        });
      }
      expectClose(loss!, [sum], 1e-3, 'loss');
      expectClose(dh!, dhs, 1e-4, 'dh'); // each a sum over the vocabulary
      expectClose(dw!, dwSum, 1e-5, 'dw');
    });
  });
});
