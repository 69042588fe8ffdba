/** Matrices of which devices have parts: together they give what the whole one gives. Devices run one after another here, each sum in two passes. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import type { FewRowsInputs, OneRowInputs } from '../../src/kernels/index.js';
import { type Across, rowwise, vocabularyParallel } from '../../src/layers/parallel.js';
import { rmsNorm } from '../../src/layers/rms_norm.js';
import type { StoredMatrix } from '../../src/layers/weights.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { lcg } from '../support/random.js';

const [COUNT, OUT, IN, EPSILON] = [2, 64, 128, 1e-5];

/** A float32 matrix with kernels as those of a GPU are, in plain ops. */
function stored(w: tf.Tensor2D): StoredMatrix {
  const apply = (x: tf.Tensor2D): tf.Tensor2D => tf.matMul(x, w, false, true);
  /** Of rows as packRows() gives them, in float32. */
  const unpacked = (values: tf.Tensor): tf.Tensor2D =>
    values.rank === 2 ? (values as tf.Tensor2D) : tf.reshape(tf.transpose(values, [1, 0, 2]), [values.shape[1]!, -1]);
  return {
    shape: w.shape,
    apply,
    rows: (ids) => tf.gather(w, ids),
    fused: ({ x, norm, residual }: OneRowInputs) => {
      const row = tf.reshape(x, [1, -1]) as tf.Tensor2D;
      const y = apply(norm ? (rmsNorm(row, norm.gamma, norm.epsilon) as tf.Tensor2D) : row);
      return residual ? tf.add<tf.Tensor2D>(y, tf.reshape(residual, y.shape)) : y;
    },
    batch: ({ rows: { values, squares }, epsilon, residual }: FewRowsInputs) => {
      expect(residual, 'a residual belongs to the sum').to.equal(undefined);
      const y = apply(unpacked(values));
      if (!squares) return { y };
      const mean = tf.div(tf.sum(squares, 1, true), w.shape[1]);
      return { y: tf.mul(y, tf.rsqrt(tf.add(mean, epsilon))) };
    },
  };
}

/** Runs the same on every device: passes in which each sum is known of one device more, as many as there are sums. */
function together<T>(sums: number, work: (device: number, across: Across) => T): T[] {
  const known: tf.Tensor[][] = Array.from({ length: COUNT }, () => []);
  for (let pass = 0; ; pass++) {
    const results = Array.from({ length: COUNT }, (_, device) => {
      let at = 0;
      const sum = <X extends tf.Tensor>(x: X): X => {
        const i = at++;
        if (i > pass) return x;
        if (i === pass) {
          known[device]![i] = x;
          return x;
        }
        return known.map((of) => of[i]!).reduce((a, b) => tf.add(a, b)) as X;
      };
      const out = work(device, { count: COUNT, sum });
      expect(at).to.equal(sums);
      return out;
    });
    if (pass === sums) return results;
  }
}

const random = lcg(7);
const values = (...shape: number[]): tf.Tensor =>
  tf.tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5),
    shape,
  );
const half = (x: tf.Tensor, device: number): tf.Tensor2D => tf.split(x, COUNT, x.rank - 1)[device] as tf.Tensor2D;

describe('parts of matrices', () => {
  before(() => useBackend('tensorflow'));

  it('rowwise: products, and what kernels give with norm and stream', () => {
    tf.tidy(() => {
      const [w, x, gamma, stream] = [values(OUT, IN), values(3, IN) as tf.Tensor2D, values(IN), values(3, OUT)];
      const product = tf.matMul(x, w, false, true);
      const normed = tf.matMul(rmsNorm(x, gamma, EPSILON), w, false, true);
      const part = (device: number, across: Across, over: boolean): StoredMatrix =>
        rowwise(stored(half(w, device)), across, over ? IN : null);
      for (const y of together(1, (k, a) => part(k, a, false).apply(half(x, k)))) expectClose(y, product, 1e-5);
      for (const y of together(1, (k, a) => part(k, a, true).normed!(half(x, k), half(gamma, k), EPSILON))) expectClose(y, normed, 1e-5); // prettier-ignore
      expect(part(0, { count: 2, sum: (y) => y }, false).normed).to.equal(undefined);

      // one row: norm over all channels, or over those of each device
      const [row, residual] = [tf.slice(x, [0, 0], [1, IN]), tf.slice(stream, [0, 0], [1, OUT])];
      const one = (k: number): OneRowInputs => ({
        x: half(row, k),
        norm: { gamma: half(gamma, k), groups: 1, epsilon: EPSILON },
        residual,
      });
      const first = tf.add(tf.slice(normed, [0, 0], [1, OUT]), residual);
      for (const y of together(1, (k, a) => part(k, a, true).fused!(one(k))!)) expectClose(y, first, 1e-5);
      const apart = [0, 1]
        .map((k) => tf.matMul(rmsNorm(half(row, k), half(gamma, k), EPSILON), half(w, k), false, true))
        .reduce((a, b) => tf.add(a, b));
      for (const y of together(1, (k, a) => part(k, a, false).fused!(one(k))!)) expectClose(y, tf.add(apart, residual), 1e-5); // prettier-ignore

      // several rows, whose values are times the norm's weight already
      const nextGamma = values(OUT);
      const few = (k: number): FewRowsInputs => ({
        rows: {
          values: tf.mul(half(x, k), half(gamma, k)),
          squares: tf.sum<tf.Tensor2D>(tf.square(half(x, k)), 1, true),
        },
        epsilon: EPSILON,
        residual: { stream, gamma: nextGamma },
      });
      const want = tf.add(normed, stream);
      for (const out of together(1, (k, a) => part(k, a, true).batch!(few(k))!)) {
        expectClose(out.y, want, 1e-5);
        expectClose(tf.sum(out.next!.squares!, 1), tf.sum(tf.square(want), 1), 1e-4);
        expect(out.next!.values.shape).to.deep.equal([OUT / 32, 3, 32]);
      }
      const local = [0, 1]
        .map((k) => tf.matMul(rmsNorm(half(x, k), half(gamma, k), EPSILON), half(w, k), false, true))
        .reduce((a, b) => tf.add(a, b));
      for (const out of together(1, (k, a) => part(k, a, false).batch!(few(k))!)) expectClose(out.y, tf.add(local, stream), 1e-5); // prettier-ignore
    });
  });

  it('by vocabulary: rows of any device, and the products of all', () => {
    tf.tidy(() => {
      const v = 7; // 4 and 3 of them
      const table = values(v, IN);
      const filled = tf.concat([table, tf.zeros([1, IN])], 0);
      const part = (k: number, across: Across): StoredMatrix =>
        vocabularyParallel(stored(tf.slice(filled, [4 * k, 0], [4, IN]) as tf.Tensor2D), across, tf.tensor1d([1 - k, k]), v); // prettier-ignore
      const ids = tf.tensor1d([0, 3, 4, 6, 3], 'int32');
      for (const y of together(1, (k, a) => part(k, a).rows(ids))) expectClose(y, tf.gather(table, ids), 0);
      const x = values(2, IN) as tf.Tensor2D;
      const want = tf.matMul(x, table, false, true);
      for (const y of together(1, (k, a) => part(k, a).apply(x))) expectClose(y, want, 1e-5);
      for (const out of together(1, (k, a) => part(k, a).batch!({ rows: { values: x }, epsilon: EPSILON })!)) expectClose(out.y, want, 1e-5); // prettier-ignore
      const row = tf.slice(x, [0, 0], [1, IN]);
      for (const y of together(1, (k, a) => part(k, a).fused!({ x: row })!)) expectClose(y, tf.slice(want, [0, 0], [1, v]), 1e-5); // prettier-ignore
      expect(part(0, { count: 2, sum: (y) => y }).shape).to.deep.equal([v, IN]);
    });
  });
});
