/**
 * The fast form for CPUs: activations rounded to int8 with a scale per group, so that products and short sums stay in
 * int16, where a vector register holds 32 of them; only then are they widened and scaled.
 *
 * Codes lie [groups, rows of a group, out]: a vector runs over outputs, and one activation multiplies all of it. A byte
 * holds a channel of the group's first half (low nibble) and one of its second half (high nibble).
 */
import * as tf from '@tensorflow/tfjs';
import { attr, bitwiseAnd, castFloat32, castTo, constantOf, rawOp, reshapeAny, rightShift } from '../jit/index.js';
import type { WeightStorage } from '../layers/storage.js';
import { differentiable } from './kernel_util.js';
import type { QuantizedMatrix } from './quantize.js';

/** Products summed in int16: 16 of at most 15·127 stay below 2¹⁵. */
const BLOCK = 16;
/** Parts of a group in which its activations are reduced. */
const PARTS = 8;
/** Most rows of x for which the codes are unpacked anew per row; more go through a dequantised matrix. */
const FEW = 4;

/** Variables: `.codes` uint8 [groups, groupSize/2, out]; `.scale` and `.least` float32 [groups, out], w = q·scale + least. */
export function cpuInt4Storage(m: QuantizedMatrix): WeightStorage {
  const [out, inner] = m.shape;
  const groups = inner / m.groupSize;
  const least = (): Float32Array => m.scale.map((s, i) => m.zero![i] - 8 * s);
  return {
    variables: {
      '.codes': { shape: [groups, m.groupSize / 2, out], dtype: 'uint8', init: () => columnCodes(m) },
      '.scale': { shape: [groups, out], dtype: 'float32', init: () => m.scale },
      '.least': { shape: [groups, out], dtype: 'float32', init: least },
    },
    weight: (vars) => {
      const form = new ColumnForm(vars['.codes'], vars['.scale'], vars['.least']);
      return {
        shape: m.shape,
        apply: (x) =>
          differentiable(
            x,
            (input) => form.apply(input),
            () => tf.transpose(form.dequantize()),
          ),
        rows: (ids) => form.rows(ids),
      };
    },
  };
}

/** Codes from rows of nibble pairs to columns. Works in tiles, so that reads and writes stay in the cache. */
export function columnCodes(m: QuantizedMatrix): Uint8Array {
  const [out, inner] = m.shape;
  const half = m.groupSize / 2;
  const packed = new Uint8Array((out * inner) / 2);
  const code = (row: number, channel: number): number => {
    const byte = m.codes[(row * inner + channel) >> 1];
    return ((channel & 1 ? byte >> 4 : byte) & 15) ^ 8;
  };
  const tile = 64;
  for (let from = 0; from < out; from += tile) {
    const to = Math.min(out, from + tile);
    for (let g = 0; g < inner / m.groupSize; g++) {
      for (let r = 0; r < half; r++) {
        const at = (g * half + r) * out;
        const channel = g * m.groupSize + r;
        for (let row = from; row < to; row++) packed[at + row] = code(row, channel) | (code(row, channel + half) << 4);
      }
    }
  }
  return packed;
}

const multiply = (a: tf.Tensor, b: tf.Tensor): tf.Tensor => rawOp('Mul', [a, b])[0];
const sumAxis = (x: tf.Tensor, axis: number): tf.Tensor =>
  rawOp('Sum', [x, tf.tensor1d([axis], 'int32')], { keep_dims: attr.bool(false) })[0];

class ColumnForm {
  private readonly groups: number;
  private readonly half: number;
  private readonly out: number;

  constructor(
    private readonly codes: tf.Tensor,
    private readonly scale: tf.Tensor,
    private readonly least: tf.Tensor,
  ) {
    [this.groups, this.half, this.out] = codes.shape as [number, number, number];
  }

  private get size(): number {
    return 2 * this.half;
  }

  private nibbles(codes: tf.Tensor): [tf.Tensor, tf.Tensor] {
    return [bitwiseAnd(codes, constantOf([15], [], 'uint8')), rightShift(codes, constantOf([4], [], 'uint8'))];
  }

  /** Wᵀ, [in, out] */
  dequantize(): tf.Tensor2D {
    const q = tf.concat(this.nibbles(this.codes).map(castFloat32), 1); // [groups, size, out]
    const w = tf.add(tf.mul(q, tf.expandDims(this.scale, 1)), tf.expandDims(this.least, 1));
    return tf.reshape(w, [this.groups * this.size, this.out]);
  }

  apply(x: tf.Tensor2D): tf.Tensor2D {
    if (x.shape[0] > FEW) return tf.matMul(x, this.dequantize());
    const rows = tf.split(x, x.shape[0]).map((row) => this.vector(row));
    return (rows.length === 1 ? rows[0] : tf.concat(rows, 0)) as tf.Tensor2D;
  }

  /**
   * One row x [1, in], rounded per group to whole multiples of its largest magnitude / 127. XLA splits reductions over
   * more than 32 elements in two, each a kernel of its own, so those of x are written over parts of a group, joined by
   * arithmetic that the next kernel takes in.
   */
  private vector(x: tf.Tensor): tf.Tensor {
    const { groups, half, out, size } = this;
    const parts = [groups, PARTS, size / PARTS];
    const join = (values: tf.Tensor, combine: (a: tf.Tensor, b: tf.Tensor) => tf.Tensor): tf.Tensor =>
      tf.split(values, PARTS, 1).reduce(combine); // [groups, PARTS] -> [groups, 1]
    const largest = join(tf.max(tf.reshape(tf.abs(x), parts), 2), tf.maximum);
    const step = tf.div(tf.maximum(largest, 1e-30), 127); // [groups, 1]
    const rounded = tf.round(tf.div(tf.reshape(x, [groups, size]), step));
    const [first, second] = tf.split(rounded, 2, 1);
    const blocks = half / BLOCK;
    const partial = (q: tf.Tensor, x8: tf.Tensor): tf.Tensor => {
      const q16 = reshapeAny(castTo(q, 'int16'), [groups, blocks, BLOCK, out]);
      const x16 = reshapeAny(castTo(x8, 'int16'), [groups, blocks, BLOCK, 1]);
      return castFloat32(sumAxis(multiply(q16, x16), 2));
    };
    const [low, high] = this.nibbles(this.codes);
    const products = tf.sum(tf.add(partial(low, first), partial(high, second)), 1); // [groups, out]
    const scaled = tf.mul(products, this.scale);
    const sums = join(tf.sum(tf.reshape(rounded, parts), 2), tf.add);
    return tf.reshape(tf.sum(tf.mul(tf.add(scaled, tf.mul(sums, this.least)), step), 0), [1, out]);
  }

  rows(ids: tf.Tensor1D): tf.Tensor2D {
    const column = (x: tf.Tensor, axis: number): tf.Tensor =>
      rawOp('GatherV2', [x, ids, tf.scalar(axis, 'int32')], { batch_dims: attr.int(0) })[0];
    const q = tf.concat(this.nibbles(column(this.codes, 2)).map(castFloat32), 1); // [groups, size, m]
    const [scale, least] = [this.scale, this.least].map((x) => tf.expandDims(column(x, 1), 1));
    const w = tf.reshape(tf.add(tf.mul(q, scale), least), [this.groups * this.size, ids.shape[0]]);
    return tf.transpose(w) as tf.Tensor2D;
  }
}
