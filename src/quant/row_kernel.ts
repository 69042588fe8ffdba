/**
 * The exact form: rows of codes as on disk, dequantised inside the product. A GPU reads each row's bytes in order, as
 * many threads as rows; int4 on a CPU has forms of its own (cpu_kernel.ts).
 */
import * as tf from '@tensorflow/tfjs';
import { bitwiseAnd, castFloat32, castTo, constantOf, gatherRows, rightShift } from '../jit/index.js';
import type { WeightStorage } from '../layers/storage.js';
import { differentiable, transposed } from './kernel_util.js';
import type { QuantizedMatrix } from './quantize.js';

/** Most rows of x for which the codes are unpacked anew per row; more go through a dequantised matrix. */
const FEW = 4;

/**
 * Variables: `.codes` uint8, q of int4 in nibbles (even channel low) or q+128 of int8; `.scale` and `.least` float32
 * [out, groups], w = q·scale + least.
 */
export function rowStorage(m: QuantizedMatrix): WeightStorage {
  const [out, inner] = m.shape;
  const groups = inner / m.groupSize;
  const middle = m.bits === 4 ? 8 : 128;
  const toggle = m.bits === 4 ? 0x88 : 0x80;
  const scale = (): Float32Array => transposed(m.scale, groups, out);
  const least = (): Float32Array => {
    const zero = m.zero ?? new Float32Array(m.scale.length);
    return transposed(
      m.scale.map((s, i) => zero[i] - middle * s),
      groups,
      out,
    );
  };
  return {
    variables: {
      '.codes': {
        shape: [out, (inner * m.bits) / 8],
        dtype: 'uint8',
        init: () => m.codes.map((byte) => byte ^ toggle),
      },
      '.scale': { shape: [out, groups], dtype: 'float32', init: scale },
      '.least': { shape: [out, groups], dtype: 'float32', init: least },
    },
    weight: (vars) => {
      const form = new RowForm(m.bits, m.groupSize, vars['.codes'], vars['.scale'], vars['.least']);
      return {
        shape: m.shape,
        apply: (x) =>
          differentiable(
            x,
            (input) => form.apply(input),
            () => form.dequantize(),
          ),
        rows: (ids) => form.rows(ids),
      };
    },
  };
}

class RowForm {
  private readonly groups: number;
  /** Columns that unpack from one byte column: two for int4 */
  private readonly parts: number;

  constructor(
    bits: 4 | 8,
    private readonly groupSize: number,
    private readonly codes: tf.Tensor,
    private readonly scale: tf.Tensor,
    private readonly least: tf.Tensor,
  ) {
    this.groups = scale.shape[1]!;
    this.parts = bits === 4 ? 2 : 1;
  }

  /** q as float32 by part: even channels and odd channels of int4, [rows, groups, groupSize/parts] each */
  private unpack(codes: tf.Tensor): tf.Tensor[] {
    const halves =
      this.parts === 1
        ? [codes]
        : [bitwiseAnd(codes, constantOf([15], [], 'uint8')), rightShift(codes, constantOf([4], [], 'uint8'))];
    return halves.map((half) => tf.reshape(castFloat32(half), [-1, this.groups, this.groupSize / this.parts]));
  }

  /** Weights of some rows: codes [n, bytes], scale and least [n, groups] -> [n, in] */
  private weights(codes: tf.Tensor, scale: tf.Tensor, least: tf.Tensor): tf.Tensor2D {
    const column = (x: tf.Tensor): tf.Tensor => tf.expandDims(x, 2);
    const parts = this.unpack(codes).map((q) => tf.add(tf.mul(q, column(scale)), column(least)));
    const woven = this.parts === 1 ? parts[0] : tf.stack(parts, 3);
    return tf.reshape(woven, [-1, this.groups * this.groupSize]);
  }

  dequantize(): tf.Tensor2D {
    return this.weights(this.codes, this.scale, this.least);
  }

  apply(x: tf.Tensor2D): tf.Tensor2D {
    if (x.shape[0] > FEW) return tf.matMul(x, this.dequantize(), false, true);
    return this.few(x);
  }

  /** x [m, in]: per group Σ q·x, then its scale; the least levels meet the sums of x alone. */
  private few(x: tf.Tensor2D): tf.Tensor2D {
    const { groups, groupSize, parts } = this;
    const m = x.shape[0];
    const woven = tf.reshape(x, [m, 1, groups, groupSize / parts, parts]);
    const columns = tf.split(woven, parts, 4).map((c) => tf.squeeze(c, [4])); // [m, 1, groups, groupSize/parts]
    const products = this.unpack(this.codes).map((q, i) => tf.mul(q, columns[i]));
    const sums = tf.sum(products.length === 1 ? products[0] : tf.add(products[0], products[1]), 3); // [m, out, groups]
    const offset = tf.mul(this.least, tf.sum(tf.reshape(x, [m, 1, groups, groupSize]), 3));
    return tf.sum(tf.add(tf.mul(sums, this.scale), offset), 2) as tf.Tensor2D;
  }

  rows(ids: tf.Tensor1D): tf.Tensor2D {
    return this.weights(
      castTo(gatherRows(this.codes, ids), 'uint8'),
      gatherRows(this.scale, ids),
      gatherRows(this.least, ids),
    );
  }
}
