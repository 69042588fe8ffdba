/**
 * Mamba-2 in plain loops and float64, token by token, one row at a time: what the layers are tested against. It shares
 * no code with src/ and takes no short cut (no chunks, no matrix products, no masks). Letters as in src/layers/ssd.ts.
 */
import * as tf from '@tensorflow/tfjs';

/** A row-major array of any rank. */
export interface Arr {
  shape: number[];
  data: Float64Array;
}

/** Weights by name. */
export type Arrs = Readonly<Record<string, Arr>>;

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Zeros, or the given values. */
export function arr(shape: readonly number[], values?: ArrayLike<number>): Arr {
  return { shape: [...shape], data: values ? Float64Array.from(values) : new Float64Array(sizeOf(shape)) };
}

export function toTensor(a: Arr): tf.Tensor {
  return tf.tensor(Float32Array.from(a.data), a.shape);
}

/** Values that float32 can hold, so that the layers and the oracle start from the same numbers. */
export function randomArr(random: () => number, shape: readonly number[], low = -1, high = 1): Arr {
  return arr(
    shape,
    Array.from({ length: sizeOf(shape) }, () => Math.fround(low + (high - low) * random())),
  );
}

/** Entries from..to of the first axis. */
export function rows(a: Arr, from: number, to: number): Arr {
  const step = sizeOf(a.shape.slice(1));
  return { shape: [to - from, ...a.shape.slice(1)], data: a.data.slice(from * step, to * step) };
}

/** Arrays of one shape on a new first axis. */
export function stack(parts: readonly Arr[]): Arr {
  const shape = [parts.length, ...parts[0]!.shape];
  return arr(
    shape,
    parts.flatMap((part) => [...part.data]),
  );
}

/** Runs `f` on every entry of the first axis and stacks what it gives. */
export function eachRow(a: Arr, f: (row: Arr, index: number) => Arr): Arr {
  return stack(
    Array.from({ length: a.shape[0]! }, (_, i) => {
      const row = rows(a, i, i + 1);
      return f({ shape: row.shape.slice(1), data: row.data }, i);
    }),
  );
}

/** Two-operand einsum by running over every value of every label. */
export function einsum(equation: string, a: Arr, b: Arr): Arr {
  const [inputs, output] = equation.split('->') as [string, string];
  const [la, lb] = inputs.split(',') as [string, string];
  const size = new Map<string, number>();
  [...la].forEach((l, i) => size.set(l, a.shape[i]!));
  [...lb].forEach((l, i) => size.set(l, b.shape[i]!));
  const labels = [...size.keys()];
  const out = arr([...output].map((l) => size.get(l)!));
  const value = new Map<string, number>(labels.map((l) => [l, 0]));
  const offset = (ls: string): number => [...ls].reduce((o, l) => o * size.get(l)! + value.get(l)!, 0);
  for (let step = 0; step < sizeOf([...size.values()]); step++) {
    let rest = step;
    for (const l of labels) {
      value.set(l, rest % size.get(l)!);
      rest = Math.floor(rest / size.get(l)!);
    }
    out.data[offset(output)]! += a.data[offset(la)]! * b.data[offset(lb)]!;
  }
  return out;
}

export const silu = (v: number): number => v / (1 + Math.exp(-v));
export const softplus = (v: number): number => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));
/** -inf..inf as a limit, ends included. */
const clamp = (v: number, [low, high]: readonly [number, number]): number => Math.min(Math.max(v, low), high);

/** x [..., in] times w [out, in] transposed, plus bias [out]. */
export function linear(x: Arr, w: Arr, bias?: Arr): Arr {
  const [out, inner] = w.shape as [number, number];
  const m = x.data.length / inner;
  const y = arr([...x.shape.slice(0, -1), out]);
  for (let i = 0; i < m; i++)
    for (let o = 0; o < out; o++) {
      let sum = bias ? bias.data[o]! : 0;
      for (let j = 0; j < inner; j++) sum += x.data[i * inner + j]! * w.data[o * inner + j]!;
      y.data[i * out + o] = sum;
    }
  return y;
}

/** Each stretch of d/groups channels is divided by its root mean square; then the weight [d] multiplies. */
export function rmsNorm(x: Arr, weight: Arr, epsilon: number, groups = 1): Arr {
  const d = weight.data.length;
  const width = d / groups;
  const y = arr(x.shape);
  for (let begin = 0; begin < x.data.length; begin += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x.data[begin + i]! ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) y.data[begin + i] = x.data[begin + i]! * scale * weight.data[(begin + i) % d]!;
  }
  return y;
}

/** Gate first, then the norm. */
export function rmsNormGated(y: Arr, gate: Arr, weight: Arr, epsilon: number, groups: number): Arr {
  const gated = arr(
    y.shape,
    y.data.map((v, i) => v * silu(gate.data[i]!)),
  );
  return rmsNorm(gated, weight, epsilon, groups);
}

/**
 * One row: x [t, d], weight [d, 1, k], context [k-1, d] (zeros when absent).
 * @returns y [t, d] and the last k-1 inputs
 */
export function causalConv(x: Arr, weight: Arr, bias?: Arr, context?: Arr): { y: Arr; context: Arr } {
  const [t, d] = x.shape as [number, number];
  const k = weight.shape[2]!;
  const before = context ?? arr([k - 1, d]);
  const input = (position: number, channel: number): number =>
    position < 0 ? before.data[(position + k - 1) * d + channel]! : x.data[position * d + channel]!;
  const y = arr([t, d]);
  for (let i = 0; i < t; i++)
    for (let c = 0; c < d; c++) {
      let sum = bias ? bias.data[c]! : 0;
      for (let tap = 0; tap < k; tap++) sum += weight.data[c * k + tap]! * input(i - (k - 1) + tap, c);
      y.data[i * d + c] = sum;
    }
  const next = arr([k - 1, d]);
  for (let i = 0; i < k - 1; i++) for (let c = 0; c < d; c++) next.data[i * d + c] = input(t - (k - 1) + i, c);
  return { y, context: next };
}

/**
 * One row of the recurrence: x [t, h, p], dt [t, h], A [h], B and C [t, g, n], state [h, p, n] (zeros when absent).
 * @returns y [t, h, p] without the D skip, and the state after the last token
 */
export function ssd(x: Arr, dt: Arr, A: Arr, B: Arr, C: Arr, initial?: Arr): { y: Arr; state: Arr } {
  const [t, h, p] = x.shape as [number, number, number];
  const [g, n] = [B.shape[1]!, B.shape[2]!];
  const state = arr([h, p, n], initial?.data);
  const y = arr([t, h, p]);
  for (let i = 0; i < t; i++)
    for (let head = 0; head < h; head++) {
      const group = Math.floor((head * g) / h);
      const step = dt.data[i * h + head]!;
      const decay = Math.exp(step * A.data[head]!);
      for (let j = 0; j < p; j++) {
        const input = step * x.data[(i * h + head) * p + j]!;
        let sum = 0;
        for (let s = 0; s < n; s++) {
          const at = (head * p + j) * n + s;
          state.data[at] = decay * state.data[at]! + input * B.data[(i * g + group) * n + s]!;
          sum += state.data[at] * C.data[(i * g + group) * n + s]!;
        }
        y.data[(i * h + head) * p + j] = sum;
      }
    }
  return { y, state };
}

/** Sizes of a mixer; the fields of MixerSpec that change the result. */
export interface MixerSizes {
  numHeads: number;
  headDim: number;
  nGroups: number;
  stateSize: number;
  epsilon: number;
  timeStepLimit: readonly [number, number];
  normGroups: 'per_group' | 'full';
}

export interface RowState {
  /** [k-1, convSize] */
  conv: Arr;
  /** [h, p, n] */
  ssm: Arr;
}

/** Columns from..to of a matrix [m, d]. */
function columns(a: Arr, from: number, to: number): Arr {
  const [m, d] = a.shape as [number, number];
  const out = arr([m, to - from]);
  for (let i = 0; i < m; i++) for (let c = from; c < to; c++) out.data[i * (to - from) + c - from] = a.data[i * d + c]!;
  return out;
}

/** One row through a mixer: u [t, d] and the state before it. */
export function mixer(spec: MixerSizes, w: Arrs, u: Arr, before?: RowState): { y: Arr; state: RowState } {
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n } = spec;
  const [t, inner] = [u.shape[0]!, h * p];
  const projected = linear(u, w['in_proj.weight']!, w['in_proj.bias']);
  const z = columns(projected, 0, inner);
  const rawXBC = columns(projected, inner, 2 * inner + 2 * g * n);
  const rawDt = columns(projected, 2 * inner + 2 * g * n, 2 * inner + 2 * g * n + h);

  const conv = causalConv(rawXBC, w['conv1d.weight']!, w['conv1d.bias'], before?.conv);
  const xBC = arr(conv.y.shape, conv.y.data.map(silu));
  const x = columns(xBC, 0, inner);
  const B = columns(xBC, inner, inner + g * n);
  const C = columns(xBC, inner + g * n, inner + 2 * g * n);
  const bias = w['dt_bias']!.data;
  const dt = arr(
    [t, h],
    rawDt.data.map((v, i) => clamp(softplus(v + bias[i % h]!), spec.timeStepLimit)),
  );
  const A = arr(
    [h],
    w['A_log']!.data.map((v) => -Math.exp(v)),
  );
  const as = (a: Arr, shape: number[]): Arr => ({ shape, data: a.data });
  const scan = ssd(as(x, [t, h, p]), dt, A, as(B, [t, g, n]), as(C, [t, g, n]), before?.ssm);
  const skipped = arr(
    [t, inner],
    scan.y.data.map((v, i) => v + w['D']!.data[Math.floor((i % inner) / p)]! * x.data[i]!),
  );
  const v = rmsNormGated(skipped, z, w['norm.weight']!, spec.epsilon, spec.normGroups === 'full' ? 1 : g);
  return { y: linear(v, w['out_proj.weight']!, w['out_proj.bias']), state: { conv: conv.context, ssm: scan.state } };
}

/** The weights below a prefix, without it. */
function below(weights: Arrs, prefix: string): Arrs {
  const entries = Object.entries(weights).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(entries.map(([name, value]) => [name.slice(prefix.length), value]));
}

/** One row through a block: the stream plus the mixer of its norm. */
export function block(spec: MixerSizes, w: Arrs, h: Arr, before?: RowState): { y: Arr; state: RowState } {
  const mixed = mixer(spec, below(w, 'mixer.'), rmsNorm(h, w['norm.weight']!, spec.epsilon), before);
  return {
    y: arr(
      h.shape,
      h.data.map((v, i) => v + mixed.y.data[i]!),
    ),
    state: mixed.state,
  };
}

/** Rows of an embedding [v, d]. */
export function embed(ids: readonly number[], table: Arr): Arr {
  const d = table.shape[1]!;
  return arr(
    [ids.length, d],
    ids.flatMap((id) => [...table.data.subarray(id * d, (id + 1) * d)]),
  );
}

/** One text through the whole model. @returns logits [t, v] and the states of the layers after it */
export function model(
  spec: MixerSizes & { layers: number },
  w: Arrs,
  ids: readonly number[],
  before?: readonly RowState[],
): { logits: Arr; hidden: Arr; states: RowState[] } {
  const table = w['backbone.embeddings.weight']!;
  const states: RowState[] = [];
  let h = embed(ids, table);
  for (let i = 0; i < spec.layers; i++) {
    const out = block(spec, below(w, `backbone.layers.${i}.`), h, before?.[i]);
    h = out.y;
    states.push(out.state);
  }
  const hidden = rmsNorm(h, w['backbone.norm_f.weight']!, spec.epsilon);
  return { logits: linear(hidden, w['lm_head.weight'] ?? table), hidden, states };
}

/** Mean over kept labels of -log softmax(logits[t])[label t+1]; labels of -100 are left out. logits [b, t, v] */
export function causalLoss(logits: Arr, labels: readonly (readonly number[])[]): number {
  const [, t, v] = logits.shape as [number, number, number];
  let sum = 0;
  let kept = 0;
  labels.forEach((row, i) => {
    for (let j = 0; j + 1 < t; j++) {
      if (row[j + 1] === -100) continue;
      const scores = logits.data.subarray((i * t + j) * v, (i * t + j + 1) * v);
      const top = Math.max(...scores);
      let total = 0;
      for (const score of scores) total += Math.exp(score - top);
      sum += top + Math.log(total) - scores[row[j + 1]!]!;
      kept++;
    }
  });
  return sum / kept;
}

/** d f / d x by central differences. `f` may read x.data; it is put back. */
export function numericGradient(x: Arr, f: () => number, step = 1e-5): Arr {
  const grad = arr(x.shape);
  for (let i = 0; i < x.data.length; i++) {
    const at = x.data[i]!;
    x.data[i] = at + step;
    const above = f();
    x.data[i] = at - step;
    grad.data[i] = (above - f()) / (2 * step);
    x.data[i] = at;
  }
  return grad;
}

/** Σ a·b, a scalar whose gradient with respect to a is b. */
export function dot(a: Arr, b: Arr): number {
  return a.data.reduce((sum, v, i) => sum + v * b.data[i]!, 0);
}

/** Each group of x rounded to whole multiples of its largest magnitude / 127, as int4 products on CPUs state it. */
export function roundedGroups(x: Float32Array, group: number): Float32Array {
  const out = new Float32Array(x.length);
  for (let begin = 0; begin < x.length; begin += group) {
    const part = x.subarray(begin, begin + group);
    const step = Math.max(...Array.from(part, Math.abs)) / 127;
    part.forEach((v, i) => (out[begin + i] = step > 0 ? Math.round(v / step) * step : 0));
  }
  return out;
}
