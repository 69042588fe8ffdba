/**
 * What the int4 kernels of CPUs compute, in plain loops and float64 over the same operands: slow, for reading and for tests. Beside each
 * result stands how far a kernel in float32 may be from it.
 */
import { type Int4ProductCall, type Int4RowCall, TILE } from './spec.js';

/** Operands by name; codes as bytes, all others as numbers. */
export type PlainOperands = Readonly<Partial<Record<string, Float32Array | Uint8Array>>>;

export interface Bounded {
  values: Float64Array;
  /** Of each value: the farthest that float32 may be from it. */
  bounds: Float64Array;
}

/** Relative error of one operation in float32. */
const ULP = 2 ** -24;
/** Of the kernels' exp, relative to its result; log1p and exp of the C library are better. */
const EXP_ERROR = 4e-7;

const silu = (v: number): number => v / (1 + Math.exp(-v));
const softplus = (v: number): number => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));

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
function product(sizes: { inner: number; group: number; out: number }, x: Bounded, operands: PlainOperands): Bounded {
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
    const y = product(call, { values: own, bounds: new Float64Array(inner) }, operands);
    all.values.set(y.values, r * out);
    all.bounds.set(y.bounds, r * out);
  }
  return all;
}

/** What is multiplied: norm((x + D·skipped)·silu(gate))·gamma. */
function prepared(call: Int4RowCall, operands: PlainOperands): Bounded {
  const { inner, skipHeads, skipOffset, normGroups, epsilon } = call;
  const { x, gate, d, gamma } = operands as Record<string, Float32Array>;
  const values = Float64Array.from(x!);
  const bounds = new Float64Array(inner);
  for (let i = 0; i < inner; i++) {
    let size = Math.abs(values[i]!);
    if (call.hasSkip) {
      const skipped = d![Math.floor(i / (inner / skipHeads))]! * gate![skipOffset + i]!;
      values[i]! += skipped;
      size += 2 * Math.abs(skipped);
      bounds[i] = 2 * ULP * size;
    }
    if (call.hasGate) {
      const factor = silu(gate![i]!);
      values[i]! *= factor;
      bounds[i] = bounds[i]! * Math.abs(factor) + (EXP_ERROR + 4 * ULP) * Math.abs(values[i]!);
    }
  }
  const span = inner / normGroups;
  for (let from = 0; call.hasNorm && from < inner; from += span) {
    let [squares, error] = [0, 0];
    for (let i = from; i < from + span; i++) {
      squares += values[i]! ** 2;
      error += 2 * Math.abs(values[i]!) * bounds[i]!;
    }
    const mean = squares / span + epsilon;
    // eight sums side by side, each of span / 8 squares; the root halves what is relative
    const relative = error / span / mean / 2 + (span / 8 + 12) * ULP;
    for (let i = from; i < from + span; i++) {
      const factor = gamma![i]! / Math.sqrt(mean);
      values[i]! *= factor;
      bounds[i] = bounds[i]! * Math.abs(factor) + relative * Math.abs(values[i]!);
    }
  }
  return { values, bounds };
}

/** Int4Row: y [out], behind it what the epilogue makes of it. */
export function int4RowReference(call: Int4RowCall, operands: PlainOperands): Bounded {
  const { out, first, channels, taps: k, low, high, place } = call;
  const { residual, context, taps, bias, dtBias } = operands as Record<string, Float32Array>;
  const y = product(call, prepared(call, operands), operands);
  if (call.hasResidual)
    residual!.forEach((value, o) => {
      y.values[o]! += value;
      y.bounds[o]! += 2 * ULP * (Math.abs(y.values[o]!) + Math.abs(value));
    });
  if (!call.hasEpilogue) return y;
  const behind = channels + dtBias!.length;
  const all = { values: new Float64Array(out + behind), bounds: new Float64Array(out + behind) };
  all.values.set(y.values);
  all.bounds.set(y.bounds);
  for (let c = 0; c < channels; c++) {
    let sum = call.hasBias ? bias![c]! : 0;
    let size = Math.abs(sum);
    for (let i = 0; i < k; i++) {
      const old = i + 1 < k ? context![place + i * channels + c]! : y.values[first + c]!;
      sum += old * taps![c * k + i]!;
      size += Math.abs(old * taps![c * k + i]!);
    }
    const error = y.bounds[first + c]! * Math.abs(taps![c * k + k - 1]!) + (k + 2) * ULP * size;
    all.values[out + c] = silu(sum);
    all.bounds[out + c] = 1.1 * error + (EXP_ERROR + 4 * ULP) * Math.abs(silu(sum)); // 1.1: the steepest that silu is
  }
  dtBias!.forEach((shift, h) => {
    const raw = y.values[first + channels + h]!;
    const step = softplus(raw + shift);
    all.values[out + channels + h] = Math.min(Math.max(step, low), high);
    all.bounds[out + channels + h] = y.bounds[first + channels + h]! + 2 * ULP * (Math.abs(raw + shift) + step + 1);
  });
  return all;
}
