/**
 * Matrices of which a device has a part (tensor parallelism), as layers see them: what they give is that of the whole matrix. Those that are cut by
 * outputs alone (transformers' 'colwise') need nothing: layers of a device have fewer heads. A layer whose matrix is one of these is as it is.
 */
import * as tf from '@tensorflow/tfjs';
import { materialiseOnGpu } from '../jit/fusion/barrier.js';
import { type FewRowsInputs, type FewRowsResult, type OneRowInputs, packRows } from '../kernels/index.js';
import type { StoredMatrix } from './weights.js';

/** All devices that a model lies on, each of which computes the same with its part. */
export interface Across {
  readonly count: number;
  /** The sum of what all devices have here. */
  sum<T extends tf.Tensor>(x: T): T;
}

/** What a matrix has of kernels. */
function kernelsOf(local: StoredMatrix): [StoredMatrix['fused'], StoredMatrix['batch']] {
  return [local.fused && ((input) => local.fused!(input)), local.batch && ((input) => local.batch!(input))];
}

const squares = (x: tf.Tensor): tf.Tensor2D => tf.sum(tf.square(x), -1, true);

/**
 * A matrix [out, in] of whose inputs a device has some ('rowwise'): products are added up over devices.
 * @param local [out, in / count]
 * @param normed channels of the norm before it where that is over all devices; it is then taken with the product: one sum gives both
 */
export function rowwise(local: StoredMatrix, across: Across, normed: number | null): StoredMatrix {
  /** Products of what is times the norm's weight already, and the squares of their inputs, [m, out] and [m, 1]: normed. */
  const withNorm = (partial: tf.Tensor2D, own: tf.Tensor2D, epsilon: number): tf.Tensor2D => {
    const out = partial.shape[1];
    const [y, all] = tf.split(across.sum(tf.concat([partial, own], 1)), [out, 1], 1) as [tf.Tensor2D, tf.Tensor2D];
    return tf.mul(y, tf.rsqrt(tf.add(tf.div(all, normed!), epsilon)));
  };
  const added = <T extends tf.Tensor>(y: T, residual: tf.Tensor | undefined): T =>
    residual ? materialiseOnGpu(tf.add(tf.reshape(residual, y.shape), y)) : y;
  const [fused, batch] = kernelsOf(local);
  return {
    shape: local.shape,
    summed: true,
    apply: (x) => across.sum(local.apply(x)),
    rows: (ids) => local.rows(ids),
    ...(normed !== null && {
      normed: (x: tf.Tensor2D, gamma: tf.Tensor, epsilon: number) =>
        withNorm(local.apply(tf.mul(x, gamma)), squares(x), epsilon),
    }),
    ...(fused && {
      fused: ({ residual, ...input }: OneRowInputs): tf.Tensor2D | null => {
        const { x, norm } = input;
        if (normed === null || !norm) {
          const partial = fused(input);
          return partial && added(across.sum(partial), residual);
        }
        const row = tf.reshape(x, [1, -1]);
        const partial = fused({ x: tf.mul(row, norm.gamma) });
        return partial && added(withNorm(partial, squares(row), norm.epsilon), residual);
      },
    }),
    ...(batch && {
      batch: ({ residual, ...input }: FewRowsInputs): FewRowsResult | null => {
        const { rows, epsilon } = input;
        const apart = normed !== null && rows.squares;
        const partial = batch(apart ? { ...input, rows: { values: rows.values } } : input)?.y;
        if (!partial) return null;
        const product = apart ? withNorm(partial, tf.sum(apart, 1, true), epsilon) : across.sum(partial);
        if (!residual) return { y: product };
        const y = added(product, residual.stream);
        return { y, next: { values: packRows(tf.mul(y, residual.gamma)), squares: squares(y) } };
      },
    }),
  };
}

/**
 * A matrix [v, d] of whose rows a device has some, such as an embedding or a head: the rows that are looked up, and the products of all.
 * @param local [ceil(v / count), d]; rows beyond v are zeros @param place 1 for the device itself and 0 for others, [count]
 * @param v rows of all devices together
 */
export function vocabularyParallel(local: StoredMatrix, across: Across, place: tf.Tensor, v: number): StoredMatrix {
  const [own, d] = local.shape as [number, number];
  /** @param y [m, own] @returns [m, v] */
  const gathered = (y: tf.Tensor2D): tf.Tensor2D => {
    const m = y.shape[0];
    const spread = tf.mul(tf.reshape(y, [m, 1, own]), tf.reshape(place, [1, across.count, 1]));
    const all = across.sum(tf.reshape(spread, [m, across.count * own])) as tf.Tensor2D;
    return all.shape[1] === v ? all : tf.slice(all, [0, 0], [m, v]);
  };
  const [fused, batch] = kernelsOf(local);
  return {
    shape: [v, d],
    apply: (x) => gathered(local.apply(x)),
    rows: (ids) => {
      const begins = tf.tensor1d(Array.from({ length: across.count }, (_, k) => k * own));
      const at = tf.sub(ids, tf.cast(tf.sum(tf.mul(place, begins)), 'int32')) as tf.Tensor1D;
      const there = tf.logicalAnd(tf.greaterEqual(at, tf.scalar(0, 'int32')), tf.less(at, tf.scalar(own, 'int32')));
      const mask = tf.cast(there, 'int32');
      const rows = tf.mul(local.rows(tf.mul(at, mask)), tf.reshape(tf.cast(mask, 'float32'), [-1, 1]));
      return across.sum(rows) as tf.Tensor2D;
    },
    ...(fused && {
      fused: (input: OneRowInputs): tf.Tensor2D | null => {
        const y = fused(input);
        return y && gathered(y);
      },
    }),
    ...(batch && {
      batch: (input: FewRowsInputs): FewRowsResult | null => {
        const made = batch(input);
        return made && { y: gathered(made.y) };
      },
    }),
  };
}
