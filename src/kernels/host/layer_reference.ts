/**
 * What LayerStep computes, in plain loops and float64 over the same operands. Beside each result stands how far a kernel in float32 may be
 * from it: errors of what goes into an operation times what it makes of them, and the operation's own.
 */
import { type Bounded, denseRow, int4Row, type PlainOperands, roundedRow, ULP } from './reference.js';
import type { LayerStepCall } from './spec.js';

/** Of the kernels' exp, relative to its result; log1p and exp of the C library are better. */
const EXP_ERROR = 4e-7;
/** Of rounding to bfloat16. */
const BF16 = 2 ** -8;

/** A number and how far a kernel's may be from it. */
interface Near {
  v: number;
  e: number;
}

const at = ({ values, bounds }: Bounded, i: number): Near => ({ v: values[i]!, e: bounds[i]! });
const exact = (v: number): Near => ({ v, e: 0 });
const times = (a: Near, b: Near): Near => ({
  v: a.v * b.v,
  e: Math.abs(a.v) * b.e + Math.abs(b.v) * a.e + a.e * b.e + ULP * Math.abs(a.v * b.v),
});
const plus = (a: Near, b: Near): Near => ({ v: a.v + b.v, e: a.e + b.e + ULP * (Math.abs(a.v) + Math.abs(b.v)) });
/** 1.1: the steepest that silu is. */
const silu = ({ v, e }: Near): Near => {
  const s = v / (1 + Math.exp(-v));
  return { v: s, e: 1.1 * e + (EXP_ERROR + 4 * ULP) * Math.abs(s) };
};

function empty(size: number): Bounded {
  return { values: new Float64Array(size), bounds: new Float64Array(size) };
}

function put(all: Bounded, i: number, { v, e }: Near): void {
  all.values[i] = v;
  all.bounds[i] = e;
}

/** norm(x)·gamma, by groups of channels. */
function normed(x: Bounded, gamma: Float32Array, groups: number, epsilon: number): Bounded {
  const size = x.values.length;
  const span = size / groups;
  const all = empty(size);
  for (let from = 0; from < size; from += span) {
    let [squares, off] = [0, 0];
    for (let i = from; i < from + span; i++) {
      squares += x.values[i]! ** 2;
      off += (2 * Math.abs(x.values[i]!) + x.bounds[i]!) * x.bounds[i]!;
    }
    const mean = squares / span + epsilon;
    // the root halves what is relative
    const relative = off / span / mean / 2 + (span + 12) * ULP;
    for (let i = from; i < from + span; i++) {
      const factor = gamma[i]! / Math.sqrt(mean);
      const v = x.values[i]! * factor;
      put(all, i, { v, e: x.bounds[i]! * Math.abs(factor) + relative * Math.abs(v) });
    }
  }
  return all;
}

/** One of the two products. */
function projected(call: LayerStepCall, operands: PlainOperands, name: 'in' | 'out', x: Bounded, out: number): Bounded {
  const sizes = { inner: x.values.length, group: call[`${name}Group`], out };
  const [matrix, scale, zero] = [operands[`${name}Matrix`], operands[`${name}Scale`], operands[`${name}Zero`]];
  return call[`${name}Int4`]
    ? int4Row(sizes, x, { codes: matrix, scale, zero })
    : denseRow(sizes, call.rounded && call[`${name}Bf16`] ? roundedRow(x) : x, matrix as Float32Array);
}

/** What the step gives: y [rows, hidden], and states and contexts after it. */
export interface LayerStepBounded {
  y: Bounded;
  state: Bounded;
  context: Bounded;
}

/** LayerStep. @param operands of bfloat16 as the numbers that they are */
export function layerStepReference(call: LayerStepCall, operands: PlainOperands): LayerStepBounded {
  const { rows, hidden, heads, headDim, groups, stateSize, taps: k, contextRow, place } = call;
  const o = operands as Record<string, Float32Array>;
  const inner = heads * headDim;
  const channels = inner + 2 * groups * stateSize;
  const width = inner + channels + heads;
  const y = empty(rows * hidden);
  const state: Bounded = { values: Float64Array.from(o['state']!), bounds: new Float64Array(o['state']!.length) };
  const context: Bounded = { values: Float64Array.from(o['context']!), bounds: new Float64Array(o['context']!.length) };
  for (let r = 0; r < rows; r++) {
    const moves = !call.hasMask || o['mask']![r] !== 0;
    const own = o['x']!.subarray(r * hidden, (r + 1) * hidden);
    const stream = { values: Float64Array.from(own), bounds: new Float64Array(hidden) };
    const all = projected(call, operands, 'in', normed(stream, o['gamma']!, 1, call.epsilon), width);
    const convolved = empty(channels);
    for (let c = 0; c < channels; c++) {
      const newest = at(all, inner + c);
      let sum = exact(call.hasBias ? o['bias']![c]! : 0);
      for (let i = 0; i < k; i++) {
        const past = r * contextRow + place + i * channels + c;
        const value = i + 1 < k ? exact(o['context']![past]!) : newest;
        sum = plus(sum, times(value, exact(o['taps']![c * k + i]!)));
        if (moves && i + 1 < k) put(context, past, i + 2 < k ? exact(o['context']![past + channels]!) : newest);
      }
      put(convolved, c, silu(sum));
    }
    const gated = empty(inner);
    for (let h = 0; h < heads; h++) {
      const raw = at(all, inner + channels + h);
      const shifted = raw.v + o['dtBias']![h]!;
      const step = Math.max(shifted, 0) + Math.log1p(Math.exp(-Math.abs(shifted)));
      const dt = {
        v: Math.min(Math.max(step, call.low), call.high),
        e: raw.e + 2 * ULP * (Math.abs(shifted) + step + 1),
      };
      const rate = Math.exp(o['aLog']![h]!);
      const left = Math.exp(-rate * dt.v);
      const decay = { v: left, e: 1.1 * left * (rate * dt.e + 4 * ULP * (1 + rate * dt.v)) };
      const group = Math.floor(h / (heads / groups)) * stateSize;
      for (let p = 0; p < headDim; p++) {
        const x = at(convolved, h * headDim + p);
        const [scaled, terms] = [times(x, dt), { v: 0, e: 0, size: 0 }];
        for (let n = 0; n < stateSize; n++) {
          const place = ((r * heads + h) * headDim + p) * stateSize + n;
          const B = at(convolved, inner + group + n);
          const C = at(convolved, inner + groups * stateSize + group + n);
          const next = plus(times(exact(o['state']![place]!), decay), times(scaled, B));
          if (moves)
            put(state, place, { v: next.v, e: next.e + (call.bf16State ? BF16 * (Math.abs(next.v) + next.e) : 0) });
          const term = times(next, C);
          terms.v += term.v;
          terms.e += term.e;
          terms.size += Math.abs(term.v);
        }
        const sum = { v: terms.v, e: terms.e + (stateSize / 8 + 12) * ULP * terms.size };
        const skipped = plus(sum, times(x, exact(o['d']![h]!)));
        put(gated, h * headDim + p, times(skipped, silu(at(all, h * headDim + p))));
      }
    }
    const last = projected(
      call,
      operands,
      'out',
      normed(gated, o['normGamma']!, call.normGroups, call.epsilon),
      hidden,
    );
    for (let c = 0; c < hidden; c++) put(y, r * hidden + c, plus(at(stream, c), at(last, c)));
  }
  return { y, state, context };
}
