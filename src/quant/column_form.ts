/**
 * The forms for CPUs in XLA's code, for those that no kernel of our own serves (tile_form.ts). The fast one rounds
 * activations to int8 with a scale per group, so that products and short sums stay in int16, where a vector register
 * holds 32 of them; only then are they widened and scaled. The exact one multiplies in float32.
 *
 * Codes lie [groups, rows of a group, out]: a vector runs over outputs, and one activation multiplies all of it. A byte
 * holds a channel of the group's first half (low nibble) and one of its second half (high nibble).
 */
import * as tf from '@tensorflow/tfjs';
import {
  attr,
  bitwiseAnd,
  castFloat32,
  castTo,
  constantOf,
  rawOp,
  reshapeAny,
  rightShift,
  sumInDtype,
} from '../jit/index.js';
import { matMulComputed } from '../jit/ops/matmul.js';
import type { WeightStorage } from '../layers/storage.js';
import { type PackedForm, packedMatrix } from './packed_form.js';
import type { QuantizedMatrix } from './quantize.js';

/** Rows of two products each that are summed in int16: 16 products of at most 15·127 stay below 2¹⁵. */
const BLOCK = 8;
/** Runs of a group in which its activations are reduced. */
const RUNS = 8;
/** The same of float32, where nothing overflows. */
const FLOAT_BLOCK = 8;
/** Most rows of x for which the codes are unpacked anew per row; more go through a dequantised matrix. */
const FEW = 8;
/** Most columns that are multiplied at once: the int16 sums of more (of a head) would not stay in the cache until they are scaled. */
const MOST_COLUMNS = 16384;
/** Columns of a vector register. */
const LANES = 32;

/** Variables: `.codes` uint8 [groups, groupSize/2, out]; `.scale` and `.least` float32 [groups, out], w = q·scale + least. */
export function columnStorage(m: QuantizedMatrix, activationQuantization: boolean): WeightStorage {
  const [out, inner] = m.shape;
  const groups = inner / m.groupSize;
  const least = (): Float32Array => {
    const { scale, zero } = m; // once: those of a part are cut at each access
    return scale.map((s, i) => zero![i]! - 8 * s);
  };
  return {
    form: `int4 columns in groups of ${m.groupSize}, ${activationQuantization ? 'rounded' : 'exact'} activations`,
    variables: {
      '.codes': { shape: [groups, m.groupSize / 2, out], dtype: 'uint8', init: () => columnCodes(m) },
      '.scale': { shape: [groups, out], dtype: 'float32', init: () => m.scale },
      '.least': { shape: [groups, out], dtype: 'float32', init: least },
    },
    weight: (vars) => {
      return packedMatrix(
        m.shape,
        new ColumnForm(vars['.codes']!, vars['.scale']!, vars['.least']!, activationQuantization),
      );
    },
  };
}

/** Codes from rows of nibble pairs to columns. Works in tiles, so that reads and writes stay in the cache. */
function columnCodes(m: QuantizedMatrix): Uint8Array {
  const [out, inner] = m.shape;
  const half = m.groupSize / 2;
  const { codes } = m;
  const packed = new Uint8Array((out * inner) / 2);
  const code = (row: number, channel: number): number => {
    const byte = codes[(row * inner + channel) >> 1]!;
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

const multiply = (a: tf.Tensor, b: tf.Tensor): tf.Tensor => rawOp('Mul', [a, b])[0]!;
/** A slice of a tensor of any element type. */
const slice = (x: tf.Tensor, begin: readonly number[], size: readonly number[]): tf.Tensor =>
  rawOp('Slice', [x, tf.tensor1d([...begin], 'int32'), tf.tensor1d([...size], 'int32')])[0]!;

class ColumnForm implements PackedForm {
  private readonly groups: number;
  private readonly half: number;
  private readonly out: number;

  constructor(
    private readonly codes: tf.Tensor,
    private readonly scale: tf.Tensor,
    private readonly least: tf.Tensor,
    private readonly rounds: boolean,
  ) {
    [this.groups, this.half, this.out] = codes.shape as [number, number, number];
  }

  private get size(): number {
    return 2 * this.half;
  }

  private nibbles(codes: tf.Tensor): [tf.Tensor, tf.Tensor] {
    return [bitwiseAnd(codes, constantOf([15], [], 'uint8')), rightShift(codes, constantOf([4], [], 'uint8'))];
  }

  /** Itself, or blocks of MOST_COLUMNS columns at most. */
  private columns(): ColumnForm[] {
    if (this.out <= MOST_COLUMNS) return [this];
    const width = LANES * Math.ceil(this.out / Math.ceil(this.out / MOST_COLUMNS) / LANES);
    const cut = (t: tf.Tensor, from: number, count: number): tf.Tensor => {
      const begin = t.shape.map((_, axis) => (axis === t.rank - 1 ? from : 0));
      const size = [...t.shape.slice(0, -1), count];
      return slice(t, begin, size);
    };
    const forms: ColumnForm[] = [];
    for (let from = 0; from < this.out; from += width) {
      const [codes, scale, least] = [this.codes, this.scale, this.least].map((t) =>
        cut(t, from, Math.min(width, this.out - from)),
      );
      forms.push(new ColumnForm(codes!, scale!, least!, this.rounds));
    }
    return forms;
  }

  /** Wᵀ, [in, out] */
  dequantize(): tf.Tensor2D {
    const q = tf.concat(this.nibbles(this.codes).map(castFloat32), 1); // [groups, size, out]
    const w = tf.add(tf.mul(q, tf.expandDims(this.scale, 1)), tf.expandDims(this.least, 1));
    return tf.reshape(w, [this.groups * this.size, this.out]);
  }

  dense(): tf.Tensor2D {
    return tf.transpose(this.dequantize());
  }

  apply(x: tf.Tensor2D): tf.Tensor2D {
    if (x.shape[0] > FEW) return matMulComputed(x, this.dequantize(), this.rounds);
    const blocks = this.columns().map((form) => (this.rounds ? form.rounded(x) : form.exact(x)));
    return blocks.length === 1 ? blocks[0]! : tf.concat(blocks, 1);
  }

  /** Sums of x over each group, [m, groups, 1]. Runs keep XLA from splitting the sum in two kernels. */
  private reduced(
    x: tf.Tensor,
    within: (x: tf.Tensor, axis: number) => tf.Tensor,
    join: (a: tf.Tensor, b: tf.Tensor) => tf.Tensor,
  ): tf.Tensor {
    const runs = within(tf.reshape(x, [-1, this.groups, RUNS, this.size / RUNS]), 3);
    return tf.split(runs, RUNS, 2).reduce(join);
  }

  /**
   * Σ over groups of (scale·products + least·sums)·step: [m, groups, out] and [m, groups, 1] -> [m, out]. The sum is written out,
   * as XLA joins a reduction over groups with what it sums and then goes through it element by element.
   */
  private scaled(products: tf.Tensor, sums: tf.Tensor, step?: tf.Tensor): tf.Tensor2D {
    const y = tf.add(tf.mul(products, this.scale), tf.mul(sums, this.least)); // [m, groups, out]
    const groups = tf.split(step ? tf.mul(y, step) : y, this.groups, 1); // [m, 1, out] each
    return tf.reshape(
      groups.reduce((a, b) => tf.add(a, b)),
      [-1, this.out],
    );
  }

  /** x [m, in], each group rounded to whole multiples of its largest magnitude / 127. */
  private rounded(x: tf.Tensor2D): tf.Tensor2D {
    const { groups, half, out, size } = this;
    const m = x.shape[0];
    const largest = this.reduced(tf.abs(x), (t, axis) => tf.max(t, axis), tf.maximum);
    const step = tf.div(1, tf.div(127, tf.maximum(largest, 1e-30))); // [m, groups, 1]
    const whole = tf.round(tf.div(tf.reshape(x, [m, groups, size]), step));
    const [first, second] = tf.split(whole, 2, 2) as [tf.Tensor, tf.Tensor];
    const blocks = half / BLOCK;
    const by = (q: tf.Tensor, x8: tf.Tensor): tf.Tensor => {
      const q16 = reshapeAny(castTo(q, 'int16'), [1, groups, blocks, BLOCK, out]);
      return multiply(q16, reshapeAny(castTo(x8, 'int16'), [m, groups, blocks, BLOCK, 1]));
    };
    const [low, high] = this.nibbles(this.codes);
    const partial = sumInDtype(rawOp('AddV2', [by(low, first), by(high, second)])[0]!, 3); // int16 [m, groups, blocks, out]
    // in two halves, so that two reductions read the int16 sums: those of one XLA would join with it, and sum element by element
    const whole32 = [0, blocks / 2]
      .map((from) => {
        const part = slice(partial, [0, 0, from, 0], [m, groups, blocks / 2, out]);
        return sumInDtype(castTo(part, 'int32'), 2);
      })
      .reduce((a, b) => tf.add(a, b));
    const products = tf.reshape(castFloat32(whole32), [m, groups, out]);
    const sums = this.reduced(whole, (t, axis) => tf.sum(t, axis), tf.add);
    return this.scaled(products, sums, step);
  }

  /**
   * x [m, in] as it is. The sums over a block are written out: as a reduction, XLA would first store every product.
   */
  private exact(x: tf.Tensor2D): tf.Tensor2D {
    const { groups, half, out } = this;
    const m = x.shape[0];
    const blocks = half / FLOAT_BLOCK;
    const codes = reshapeAny(this.codes, [1, groups, blocks, FLOAT_BLOCK, out]);
    const halves = tf.split(tf.reshape(x, [m, groups, 2, blocks, FLOAT_BLOCK, 1]), 2, 2);
    const columns = halves.map((part) => tf.reshape(part, [m, groups, blocks, FLOAT_BLOCK, 1]));
    const products: tf.Tensor[] = [];
    for (let r = 0; r < FLOAT_BLOCK; r++) {
      this.nibbles(slice(codes, [0, 0, 0, r, 0], [1, groups, blocks, 1, out])).forEach((q, i) => {
        products.push(tf.mul(castFloat32(q), tf.slice(columns[i]!, [0, 0, 0, r, 0], [m, groups, blocks, 1, 1])));
      });
    }
    const sum = tf.reshape(
      products.reduce((a, b) => tf.add(a, b)),
      [m, groups, blocks, out],
    );
    return this.scaled(
      tf.sum(sum, 2),
      this.reduced(x, (t, axis) => tf.sum(t, axis), tf.add),
    );
  }

  rows(ids: tf.Tensor1D): tf.Tensor2D {
    const column = (x: tf.Tensor, axis: number): tf.Tensor =>
      rawOp('GatherV2', [x, ids, tf.scalar(axis, 'int32')], { batch_dims: attr.int(0) })[0]!;
    const q = tf.concat(this.nibbles(column(this.codes, 2)).map(castFloat32), 1); // [groups, size, m]
    const wide = (x: tf.Tensor): tf.Tensor => tf.expandDims(column(x, 1), 1); // [groups, 1, m]
    const [scale, least] = [wide(this.scale), wide(this.least)];
    const w = tf.reshape(tf.add(tf.mul(q, scale), least), [this.groups * this.size, ids.shape[0]]);
    return tf.transpose(w) as tf.Tensor2D;
  }
}
