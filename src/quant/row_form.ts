/**
 * The exact form: rows of codes as on disk, dequantised inside the product. A GPU reads each row's bytes in order, as
 * many threads as rows; int4 on a CPU has forms of its own (column_form.ts).
 */
import * as tf from '@tensorflow/tfjs';
import { bitwiseAnd, castFloat32, castTo, constantOf, gatherRows, matMulStored, rightShift } from '../jit/index.js';
import { oneRowProduct, type OneRowInputs } from '../kernels/index.js';
import type { WeightStorage } from '../layers/storage.js';
import { type PackedForm, packedMatrix, storedLevels, transposed } from './packed_form.js';
import type { QuantizedMatrix } from './quantize.js';

/** Most rows of x for which the codes are unpacked anew per row; more go through a dequantised matrix. */
const FEW = 4;

/**
 * Variables: `.codes` uint8, q+8 of int4 in nibbles or q+128 of int8; `.scale` [out, groups] and, of int4, `.zero`, in their type on disk,
 * w = q·scale + zero. Nibbles lie as the kernels of a GPU want them (WeightFormat): four bytes make a word, and nibble p of a group's
 * word i is channel p·groupSize/8 + i of the group.
 * @param activationQuantization whether the kernel of a GPU may round activations to 16 bits
 */
export function rowStorage(m: QuantizedMatrix, activationQuantization = true): WeightStorage {
  const [out, inner] = m.shape;
  const groups = inner / m.groupSize;
  const dtype = m.scaleDtype;
  const levels = (values: Float32Array): ArrayBufferView => storedLevels(transposed(values, groups, out), dtype);
  return {
    form: `int${m.bits} rows in groups of ${m.groupSize}, ${dtype} scales${activationQuantization ? '' : ', exact'}`,
    variables: {
      '.codes': {
        shape: [out, (inner * m.bits) / 8],
        dtype: 'uint8',
        init: () => (m.bits === 4 ? wordwise(m.codes, m.groupSize) : m.codes.map((byte) => byte ^ 0x80)),
      },
      '.scale': { shape: [out, groups], dtype, init: () => levels(m.scale) },
      ...(m.bits === 4 && { '.zero': { shape: [out, groups], dtype, init: () => levels(m.zero!) } }),
    },
    weight: (vars) => {
      const format = { kind: 'codes', groupSize: m.groupSize, levels: dtype, exact: !activationQuantization } as const;
      const form = new RowForm(m.bits, m.groupSize, vars['.codes']!, vars['.scale']!, vars['.zero']);
      return {
        ...packedMatrix(m.shape, form),
        // the kernels know int4 alone
        ...(m.bits === 4 && {
          fused: (input: OneRowInputs) =>
            oneRowProduct(m.shape, format, input, [vars['.codes']!, vars['.scale']!, vars['.zero']!]),
        }),
      };
    },
  };
}

/**
 * From two neighbouring channels a byte, as on disk, to the order of words.
 * @param codes signed nibbles, even channel low @param groupSize a multiple of 8
 */
function wordwise(codes: Uint8Array, groupSize: number): Uint8Array {
  const out = new Uint8Array(codes.length);
  const [bytes, words] = [groupSize / 2, groupSize / 8];
  for (let group = 0; group < codes.length; group += bytes) {
    for (let c = 0; c < groupSize; c++) {
      const code = ((codes[group + (c >> 1)]! >> (4 * (c & 1))) & 15) ^ 8;
      const position = Math.floor(c / words);
      out[group + 4 * (c % words) + (position >> 1)]! |= code << (4 * (position & 1));
    }
  }
  return out;
}

class RowForm implements PackedForm {
  private readonly groups: number;
  /** Columns that unpack from one byte column: two for int4 */
  private readonly perByte: number;

  constructor(
    bits: 4 | 8,
    private readonly groupSize: number,
    private readonly codes: tf.Tensor,
    private readonly scale: tf.Tensor,
    private readonly zero?: tf.Tensor,
  ) {
    this.groups = scale.shape[1]!;
    this.perByte = bits === 4 ? 2 : 1;
  }

  /** Words of four bytes in a group of int4; int8 takes a group's bytes as one. */
  private get words(): number {
    return this.perByte === 2 ? this.groupSize / 8 : 1;
  }

  /** q as float32 by nibble: low and high nibbles of int4, [rows, groups, words, bytes of a word] each */
  private unpack(codes: tf.Tensor): tf.Tensor[] {
    const halves =
      this.perByte === 1
        ? [codes]
        : [bitwiseAnd(codes, constantOf([15], [], 'uint8')), rightShift(codes, constantOf([4], [], 'uint8'))];
    return halves.map((half) =>
      tf.reshape(castFloat32(half), [-1, this.groups, this.words, this.groupSize / this.perByte / this.words]),
    );
  }

  /** Scale and least weight of each group in float32, [n, groups] each: w = code·scale + least. */
  private levels(scale = this.scale, zero = this.zero): { scale: tf.Tensor; least: tf.Tensor } {
    const wide = castFloat32(scale);
    const lowest = tf.mul(wide, this.perByte === 2 ? -8 : -128);
    return { scale: wide, least: zero ? tf.add(castFloat32(zero), lowest) : lowest };
  }

  /** Weights of some rows: codes [n, bytes], levels [n, groups] -> [n, in] */
  private weights(codes: tf.Tensor, { scale, least }: { scale: tf.Tensor; least: tf.Tensor }): tf.Tensor2D {
    const column = (x: tf.Tensor): tf.Tensor => tf.reshape(x, [-1, this.groups, 1, 1]);
    const weights = this.unpack(codes).map((q) => tf.add(tf.mul(q, column(scale)), column(least)));
    // nibble p of word i is channel p·words + i
    const woven = this.perByte === 1 ? weights[0]! : tf.transpose(tf.stack(weights, 4), [0, 1, 3, 4, 2]);
    return tf.reshape(woven, [-1, this.groups * this.groupSize]);
  }

  dense(): tf.Tensor2D {
    return this.weights(this.codes, this.levels());
  }

  apply(x: tf.Tensor2D): tf.Tensor2D {
    if (x.shape[0] > FEW) return matMulStored(x, this.dense());
    return this.few(x);
  }

  /** x [m, in]: per group Σ q·x, then its scale; the least levels meet the sums of x alone. */
  private few(x: tf.Tensor2D): tf.Tensor2D {
    const { groups, groupSize, perByte, words } = this;
    const m = x.shape[0];
    // [m, groups, bytes of a word, perByte, words] -> by nibble [m, 1, groups, words, bytes of a word]
    const woven = tf.reshape(x, [m, groups, groupSize / perByte / words, perByte, words]);
    const columns = tf
      .split(tf.transpose(woven, [0, 1, 4, 2, 3]), perByte, 4)
      .map((c) => tf.reshape(c, [m, 1, groups, words, groupSize / perByte / words]));
    const products = this.unpack(this.codes).map((q, i) => tf.mul(q, columns[i]!));
    const sums = tf.sum(products.length === 1 ? products[0]! : tf.add(products[0]!, products[1]!), [3, 4]); // [m, out, groups]
    const { scale, least } = this.levels();
    const offset = tf.mul(least, tf.sum(tf.reshape(x, [m, 1, groups, groupSize]), 3));
    return tf.sum(tf.add(tf.mul(sums, scale), offset), 2) as tf.Tensor2D;
  }

  rows(ids: tf.Tensor1D): tf.Tensor2D {
    return this.weights(
      castTo(gatherRows(this.codes, ids), 'uint8'),
      this.levels(gatherRows(this.scale, ids), this.zero && gatherRows(this.zero, ids)),
    );
  }
}
