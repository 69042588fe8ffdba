/** Several documents in one row: each must come out as if it were alone, values and gradients. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { mixerForward, mixerSpec, mixerWeightSpecs, type MixerState, type Weights } from '../../src/layers/index.js';
import { onBackends } from '../support/backends.js';
import { expectClose } from '../support/compare.js';

const spec = mixerSpec({
  hiddenSize: 8,
  numHeads: 4,
  headDim: 4,
  nGroups: 2,
  stateSize: 6,
  chunkSize: 4,
  convKernel: 4,
});

function weights(): Record<string, tf.Tensor> {
  return Object.fromEntries(
    mixerWeightSpecs(spec).map(({ name, shape }, i) => [
      name,
      name === 'A_log'
        ? tf.zeros(shape)
        : tf.randomNormal(shape, name === 'norm.weight' ? 1 : 0, 0.4, 'float32', 17 + i),
    ]),
  );
}

/** Lengths of the documents of a row; together 19: borders within chunks, on their edges, and documents of one token. */
const ROWS = [[1, 2, 1, 15], [4, 4, 11], [19], [3, 9, 1, 1, 5]];

onBackends(['tensorflow', 'cpu'], 'documents in one row', () => {
  const t = 19;
  const segmentsOf = (lengths: number[]): number[] => lengths.flatMap((n, i) => new Array<number>(n).fill(i));

  it('give what they give alone', () => {
    tf.tidy(() => {
      const w: Weights = weights();
      const u = tf.randomNormal([ROWS.length, t, 8], 0, 1, 'float32', 5) as tf.Tensor3D;
      const segments = tf.tensor2d(ROWS.map(segmentsOf), [ROWS.length, t], 'int32');
      const { y, state } = mixerForward(spec, w, u, { segments });
      ROWS.forEach((lengths, row) => {
        let at = 0;
        lengths.forEach((n, i) => {
          const alone = mixerForward(spec, w, tf.slice(u, [row, at, 0], [1, n, 8]));
          expectClose(tf.slice(y, [row, at, 0], [1, n, 8]), alone.y, 1e-5, `row ${row} document ${i}`);
          at += n;
          if (at < t) return;
          expectClose(tf.slice(state.ssm, [row, 0, 0, 0], [1, 4, 4, 6]), alone.state.ssm, 1e-5, `state of row ${row}`);
        });
      });
    });
  });

  it('give the gradients that they give alone', () => {
    tf.tidy(() => {
      const made = weights();
      const names = Object.keys(made);
      const u = tf.randomNormal([1, t, 8], 0, 1, 'float32', 6) as tf.Tensor3D;
      const target = tf.randomNormal([1, t, 8], 0, 1, 'float32', 7);
      const lengths = ROWS[3]!;
      const segments = tf.tensor2d([segmentsOf(lengths)], [1, t], 'int32');
      const packed = tf.grads((x: tf.Tensor, ...w: tf.Tensor[]) =>
        tf.sum(
          tf.mul(
            mixerForward(spec, Object.fromEntries(names.map((n, i) => [n, w[i]!])), x as tf.Tensor3D, { segments }).y,
            target,
          ),
        ),
      )([u, ...Object.values(made)]);
      const alone = tf.grads((x: tf.Tensor, ...w: tf.Tensor[]) => {
        const record = Object.fromEntries(names.map((n, i) => [n, w[i]!]));
        let at = 0;
        const parts = lengths.map((n) => {
          const y = mixerForward(spec, record, tf.slice(x as tf.Tensor3D, [0, at, 0], [1, n, 8])).y;
          at += n;
          return y;
        });
        return tf.sum(tf.mul(tf.concat(parts, 1), target));
      })([u, ...Object.values(made)]);
      packed.forEach((grad, i) => expectClose(grad, alone[i]!, 2e-5, ['u', ...names][i]));
    });
  });

  it('go on from a state in the first document only', () => {
    tf.tidy(() => {
      const w: Weights = weights();
      const u = tf.randomNormal([1, t, 8], 0, 1, 'float32', 8) as tf.Tensor3D;
      const state: MixerState = mixerForward(
        spec,
        w,
        tf.randomNormal([1, 5, 8], 0, 1, 'float32', 9) as tf.Tensor3D,
      ).state;
      const segments = tf.tensor2d([segmentsOf([6, 13])], [1, t], 'int32');
      const { y } = mixerForward(spec, w, u, { segments, state });
      const first = mixerForward(spec, w, tf.slice(u, [0, 0, 0], [1, 6, 8]), { state }).y;
      const second = mixerForward(spec, w, tf.slice(u, [0, 6, 0], [1, 13, 8])).y;
      expectClose(y, tf.concat([first, second], 1), 1e-5);
      const short = mixerForward({ ...spec, chunkSize: 64 }, w, u, { segments, state });
      expectClose(short.y, y, 1e-5, 'one chunk');
      expectClose(
        short.state.ssm,
        mixerForward(spec, w, tf.slice(u, [0, 6, 0], [1, 13, 8])).state.ssm,
        1e-5,
        'final state',
      );
    });
  });

  it('refuse segments of another size', () => {
    tf.tidy(() => {
      const u = tf.zeros([1, t, 8]) as tf.Tensor3D;
      const short = tf.zeros([1, t - 1], 'int32') as tf.Tensor2D;
      expect(() =>
        mixerForward(
          { ...spec, convKernel: 1 },
          { ...weights(), 'conv1d.weight': tf.zeros([spec.convSize, 1, 1]) },
          u,
          { segments: short },
        ),
      ).to.throw(/segments/);
    });
  });
});
