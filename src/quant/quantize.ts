/**
 * The arithmetic of quantising: from rows of float32 weights to codes, scales and zeros (torchao's formulas), and back.
 * Plain typed arrays, row by row, so that a matrix never needs to be whole in float.
 */
import { ArgumentError } from '../base/errors.js';
import { toBfloat16 } from '../base/stored_dtypes.js';
import type { Rounding } from './config.js';
import { fitGroup } from './search.js';

/** A matrix [out, in] of int4 or int8 codes, in the layout in which it is stored on disk (torchao's plain packing). */
export interface QuantizedMatrix {
  readonly bits: 4 | 8;
  /** [out, in] */
  readonly shape: readonly [number, number];
  /** Input channels that share a scale; for int8 all of them. */
  readonly groupSize: number;
  /**
   * int4: [out, in/2] bytes; the even input channel in the low nibble, q-8 in two's complement, q in 0..15.
   * int8: [out, in] bytes, two's complement. May be read from a file at each access: take it once.
   */
  readonly codes: Uint8Array;
  /** [in/groupSize, out] */
  readonly scale: Float32Array;
  /** [in/groupSize, out]; null when there is none (symmetric int8). w = (q-8)·scale + zero */
  readonly zero: Float32Array | null;
  /** Type in which scale and zero are stored; their values here are already rounded to it. */
  readonly scaleDtype: 'float32' | 'bfloat16';
}

/** How well a quantised matrix stands for its weights. */
export interface QuantizationError {
  /** Σ w² */
  readonly energy: number;
  /** Σ (w - ŵ)² */
  readonly squared: number;
  /** ‖w - ŵ‖ / ‖w‖ (Frobenius) */
  readonly relative: number;
}

export interface MatrixOptions {
  bits: 4 | 8;
  /** int4 only */
  groupSize?: number;
  /** Default 'float32'. */
  scaleDtype?: 'float32' | 'bfloat16';
  /** int4 only. Default 'minmax'. */
  rounding?: Rounding;
  /** For messages. */
  name?: string;
}

/** Least scale: the smallest normal float32. A group of equal weights has it, and its zero then gives them back. */
const LEAST_SCALE = 1.1754943508222875e-38;
/** Adding and taking away 1.5·2²³ rounds a float32 of moderate size to a whole number, ties to even. */
const ROUND = 12582912;
const f = Math.fround;

/**
 * Quantises a matrix whose rows come in order, in blocks.
 *
 * @example
 * const quantizer = new MatrixQuantizer([2, 128], { bits: 4, groupSize: 128 });
 * quantizer.rows(new Float32Array(256));
 * const matrix = quantizer.finish();
 */
export class MatrixQuantizer {
  private readonly codes: Uint8Array;
  private readonly scale: Float32Array;
  private readonly zero: Float32Array | null;
  private readonly group: number;
  private done = 0;
  private energy = 0;
  private squared = 0;

  constructor(
    readonly shape: readonly [number, number],
    private readonly options: MatrixOptions,
  ) {
    const [out, inner] = shape;
    this.group = options.bits === 8 ? inner : (options.groupSize ?? 128);
    if (inner % this.group !== 0 || (options.bits === 4 && this.group % 2 !== 0))
      throw new ArgumentError(
        `${options.name ?? 'quantize'}: ${inner} input channels are no multiple of the group size ${this.group}.`,
        { shape, groupSize: this.group },
      );
    this.codes = new Uint8Array((out * inner * options.bits) / 8);
    this.scale = new Float32Array((inner / this.group) * out);
    this.zero = options.bits === 4 ? new Float32Array(this.scale.length) : null;
  }

  /**
   * The next rows, [n, in].
   * @throws ArgumentError when a weight is NaN or infinite, or there are too many
   */
  rows(values: Float32Array): void {
    const [out, inner] = this.shape;
    const count = values.length / inner;
    if (!Number.isInteger(count) || this.done + count > out)
      throw new ArgumentError(`quantize: ${values.length} values are not rows of [${this.shape.join(', ')}].`, {});
    for (let row = 0; row < count; row++) {
      for (let begin = 0; begin < inner; begin += this.group) {
        const at = (begin / this.group) * out + this.done;
        if (this.options.bits === 4) this.int4Group(values, row * inner + begin, at, begin);
        else this.int8Row(values, row * inner, at);
      }
      this.done++;
    }
  }

  finish(): { matrix: QuantizedMatrix; error: QuantizationError } {
    if (this.done !== this.shape[0])
      throw new ArgumentError(`quantize: got ${this.done} rows of ${this.shape[0]}.`, { got: this.done });
    const { codes, scale, zero, energy, squared } = this;
    const { bits, scaleDtype = 'float32' } = this.options;
    return {
      matrix: { bits, shape: this.shape, groupSize: this.group, codes, scale, zero, scaleDtype },
      error: { energy, squared, relative: energy > 0 ? Math.sqrt(squared / energy) : 0 },
    };
  }

  private refuse(value: number): never {
    const { name = 'a weight' } = this.options;
    throw new ArgumentError(`${name}: row ${this.done} holds ${value}, which cannot be quantised.`, {
      tensor: this.options.name,
      row: this.done,
    });
  }

  private int4Group(w: Float32Array, from: number, at: number, channel: number): void {
    const to = from + this.group;
    let min = w[from]!;
    let max = min;
    for (let i = from; i < to; i++) {
      const v = w[i]!;
      if (!(v - v === 0)) this.refuse(v);
      if (v < min) min = v;
      else if (v > max) max = v;
    }
    let scale = Math.max(f(f(max - min) / 15), LEAST_SCALE);
    if (this.options.rounding === 'search') [min, scale] = fitGroup(w, from, to, min, scale);
    const zero = f(min + f(8 * scale));
    const round = this.options.scaleDtype === 'bfloat16';
    const [s, z] = round ? [toBfloat16(scale), toBfloat16(zero)] : [scale, zero];
    this.scale[at] = s;
    this.zero![at] = z;
    let byte = (this.done * this.shape[1] + channel) / 2;
    let [energy, squared] = [0, 0];
    for (let i = from; i < to; i += 2) {
      const [a, b] = [w[i]!, w[i + 1]!];
      let low = f(f(f(a - min) / scale) + ROUND) - ROUND;
      let high = f(f(f(b - min) / scale) + ROUND) - ROUND;
      low = low < 0 ? 0 : low > 15 ? 15 : low;
      high = high < 0 ? 0 : high > 15 ? 15 : high;
      // q xor 8 is q-8 in two's complement of four bits
      this.codes[byte++] = (low | (high << 4)) ^ 0x88;
      const [da, db] = [a - ((low - 8) * s + z), b - ((high - 8) * s + z)];
      energy += a * a + b * b;
      squared += da * da + db * db;
    }
    this.energy += energy;
    this.squared += squared;
  }

  private int8Row(w: Float32Array, from: number, at: number): void {
    const to = from + this.group;
    let largest = 0;
    for (let i = from; i < to; i++) {
      const v = Math.abs(w[i]!);
      if (!(v - v === 0)) this.refuse(w[i]!);
      if (v > largest) largest = v;
    }
    // float32's epsilon is torchao's floor of an int8 scale
    const exact = Math.max(f(largest / 127.5), 1.1920928955078125e-7);
    const s = this.options.scaleDtype === 'bfloat16' ? toBfloat16(exact) : exact;
    this.scale[at] = s;
    const signed = new Int8Array(this.codes.buffer, this.done * this.group, this.group);
    for (let i = from; i < to; i++) {
      const q = f(f(w[i]! / exact) + ROUND) - ROUND;
      const code = q < -128 ? -128 : q > 127 ? 127 : q;
      signed[i - from] = code;
      const d = w[i]! - code * s;
      this.energy += w[i]! * w[i]!;
      this.squared += d * d;
    }
  }
}

/**
 * Quantises a whole matrix.
 * @param values row-major [out, in]
 * @throws ArgumentError when a value is not finite or the groups do not divide the rows
 */
export function quantizeMatrix(
  values: Float32Array,
  shape: readonly [number, number],
  options: MatrixOptions,
): { matrix: QuantizedMatrix; error: QuantizationError } {
  const quantizer = new MatrixQuantizer(shape, options);
  quantizer.rows(values);
  return quantizer.finish();
}

/**
 * The weights that rows from..to of a quantised matrix stand for: (q-8)·scale + zero, each step in float32.
 * @param out where to write, default a new array
 * @returns [to-from, in]
 */
export function dequantizeRows(m: QuantizedMatrix, from: number, to: number, out?: Float32Array): Float32Array {
  const [rows, inner] = m.shape;
  const values = out ?? new Float32Array((to - from) * inner);
  const table = new Float32Array(16);
  const { codes } = m;
  const signed = new Int8Array(codes.buffer, codes.byteOffset, codes.byteLength);
  let o = 0;
  for (let row = from; row < to; row++) {
    for (let g = 0, begin = 0; begin < inner; g++, begin += m.groupSize) {
      const scale = m.scale[g * rows + row]!;
      if (m.bits === 8) {
        const zero = m.zero ? m.zero[g * rows + row]! : 0;
        const start = row * inner + begin;
        for (let i = 0; i < m.groupSize; i++) values[o++] = f(f(signed[start + i]! * scale) + zero);
        continue;
      }
      const zero = m.zero![g * rows + row]!;
      for (let q = 0; q < 16; q++) table[q ^ 8] = f(f((q - 8) * scale) + zero);
      const start = (row * inner + begin) / 2;
      for (let i = 0; i < m.groupSize / 2; i++) {
        const byte = codes[start + i]!;
        values[o++] = table[byte & 15]!;
        values[o++] = table[byte >> 4]!;
      }
    }
  }
  return values;
}

/** The codes 0..15 of an int4 matrix, [out, in]. */
export function int4Codes(m: QuantizedMatrix): Uint8Array {
  const { codes } = m;
  const q = new Uint8Array(codes.length * 2);
  codes.forEach((byte, i) => {
    q[2 * i] = (byte & 15) ^ 8;
    q[2 * i + 1] = (byte >> 4) ^ 8;
  });
  return q;
}

/** Bytes that a quantised matrix takes as stored. */
export function storedBytes(m: QuantizedMatrix): number {
  const width = m.scaleDtype === 'bfloat16' ? 2 : 4;
  return (m.shape[0] * m.shape[1] * m.bits) / 8 + width * (m.scale.length + (m.zero?.length ?? 0));
}
