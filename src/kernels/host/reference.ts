/**
 * What the kernels of CPUs compute, in plain loops and float64 over the same operands: slow, for reading and for tests. Beside each
 * result stands how far a kernel in float32 may be from it.
 */
import { toBfloat16 } from '../../base/stored_dtypes.js';
import { type DenseProductCall, type Int4ProductCall, TILE } from './spec.js';

/** Operands by name; codes as bytes, all others as numbers. */
export type PlainOperands = Readonly<Partial<Record<string, Float32Array | Uint8Array>>>;

export interface Bounded {
  values: Float64Array;
  /** Of each value: the farthest that float32 may be from it. */
  bounds: Float64Array;
}

/** Relative error of one operation in float32. */
export const ULP = 2 ** -24;

/** A weight of a matrix in tiles: its code, 0 to 15, and where its group's scale and zero lie. */
function codeAt(
  codes: Uint8Array,
  { inner, group }: { inner: number; group: number },
  o: number,
  i: number,
): { code: number; level: number } {
  const groups = inner / group;
  const [tile, lane, g, within] = [Math.floor(o / TILE), o % TILE, Math.floor(i / group), i % group];
  const half = group / 2;
  const channel = within % half;
  const word = (tile * groups + g) * (group / 8) + (channel >> 2);
  const byte = codes[(word * TILE + lane) * 4 + (channel & 3)]!;
  return { code: within < half ? byte & 15 : byte >> 4, level: (tile * groups + g) * TILE + lane };
}

/**
 * x·Wᵀ of one row, x rounded to int8 in groups: to whole multiples of the group's largest magnitude / 127. Sums of whole numbers are exact.
 * @param x values, and how far each may be from what a kernel has, which then may round it the other way
 */
export function int4Row(
  sizes: { inner: number; group: number; out: number },
  x: Bounded,
  operands: PlainOperands,
): Bounded {
  const { inner, group, out } = sizes;
  const { codes, scale, zero } = operands as { codes: Uint8Array; scale: Float32Array; zero: Float32Array };
  const values = new Float64Array(out);
  const bounds = new Float64Array(out);
  for (let g = 0; g < inner / group; g++) {
    const from = g * group;
    let [largest, off] = [1e-30, 0];
    for (let i = from; i < from + group; i++) {
      const magnitude = Math.abs(x.values[i]!);
      largest = Math.max(largest, magnitude);
      off = Math.max(off, x.bounds[i]!);
    }
    const step = largest / 127;
    const stepError = off / 127 + 4 * ULP * step;
    for (let o = 0; o < out; o++) {
      let [sum, least, sizeOfAll, turned] = [0, 0, 0, 0];
      let w = { scale: 0, zero: 0 };
      for (let i = from; i < from + group; i++) {
        const { code, level } = codeAt(codes, sizes, o, i);
        w = { scale: scale[level]!, zero: zero[level]! };
        const ratio = x.values[i]! / step;
        const whole = Math.round(ratio);
        sum += (code - 8) * whole;
        least += whole;
        const weight = (code - 8) * w.scale + w.zero;
        sizeOfAll += (Math.abs((code - 8) * w.scale) + Math.abs(w.zero)) * Math.abs(whole);
        // near the middle of two whole numbers, the kernel may take the other one
        const doubt = (x.bounds[i]! + Math.abs(ratio) * stepError) / step + 4 * ULP * Math.abs(ratio);
        if (Math.abs(Math.abs(ratio - Math.floor(ratio)) - 0.5) <= doubt) turned += Math.abs(weight);
      }
      values[o]! += step * (w.scale * sum + w.zero * least);
      bounds[o]! += step * turned + (stepError + (inner / group + 4) * ULP * step) * sizeOfAll;
    }
  }
  return { values, bounds };
}

/** Int4Product: y [rows, out]. */
export function int4ProductReference(call: Int4ProductCall, operands: PlainOperands): Bounded {
  const { rows, inner, out } = call;
  const x = operands['x'] as Float32Array;
  const all = { values: new Float64Array(rows * out), bounds: new Float64Array(rows * out) };
  for (let r = 0; r < rows; r++) {
    const own = Float64Array.from(x.subarray(r * inner, (r + 1) * inner));
    const y = int4Row(call, { values: own, bounds: new Float64Array(inner) }, operands);
    all.values.set(y.values, r * out);
    all.bounds.set(y.bounds, r * out);
  }
  return all;
}

/**
 * x·Wᵀ of one row. A sum in float32 may go astray by its terms' sizes times their number, in whatever order.
 * @param x values, and how far each may be from what a kernel has
 */
export function denseRow({ inner, out }: { inner: number; out: number }, x: Bounded, w: Float32Array): Bounded {
  const y = { values: new Float64Array(out), bounds: new Float64Array(out) };
  for (let o = 0; o < out; o++) {
    let [sum, size, off] = [0, 0, 0];
    for (let c = 0; c < inner; c++) {
      const weight = w[o * inner + c]!;
      sum += x.values[c]! * weight;
      size += Math.abs(x.values[c]! * weight);
      off += x.bounds[c]! * Math.abs(weight);
    }
    y.values[o] = sum;
    // eight sums or more side by side, and what puts them together
    y.bounds[o] = off + (inner / 8 + 12) * ULP * (size + off);
  }
  return y;
}

/** Numbers rounded to bfloat16. What a kernel has may lie on the other side of the middle of two of them. */
export function roundedRow(x: Bounded): Bounded {
  const values = Float64Array.from(x.values, toBfloat16);
  const bounds = Float64Array.from(values, (value, i) => {
    const [v, e] = [x.values[i]!, x.bounds[i]!];
    return Math.max(Math.abs(toBfloat16(v - e) - value), Math.abs(toBfloat16(v + e) - value));
  });
  return { values, bounds };
}

/** DenseProduct: y [rows, out]. */
export function denseProductReference(call: DenseProductCall, operands: PlainOperands): Bounded {
  const { rows, inner, out } = call;
  const { x, w } = operands as Record<string, Float32Array>;
  const all = { values: new Float64Array(rows * out), bounds: new Float64Array(rows * out) };
  for (let r = 0; r < rows; r++) {
    const given = Float64Array.from(x!.subarray(r * inner, (r + 1) * inner));
    const own = { values: given, bounds: new Float64Array(inner) };
    const y = denseRow(call, call.rounded ? roundedRow(own) : own, w!);
    all.values.set(y.values, r * out);
    all.bounds.set(y.bounds, r * out);
  }
  return all;
}
