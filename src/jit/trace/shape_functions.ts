/**
 * Shape functions of families of ops: the output shapes from input shapes, attributes and constant inputs, as tensorflow/core/ops computes
 * them. shapes.ts says which op has which.
 */
import { TracingError } from '../errors.js';
import { describe } from '../../runtime/data_types.js';
import type { Attrs } from './graphdef.js';
import type { Value } from './graph.js';

type Shape = number[];
/** Shapes of all outputs of one op. */
export type ShapeFunction = (inputs: readonly Value[], attrs: Attrs, op: string) => Shape[];

/** Integers of an input that must be known while tracing. @throws TracingError when they depend on data */
export function ints(value: Value, op: string, what: string): number[] {
  if (!value.data) {
    throw new TracingError(
      `${op}: ${what} depends on data, so the shape of the result cannot be known while tracing. Compute it outside and pass it as a static argument, or use an op of fixed shape (mask instead of select).`,
      { op, argument: what },
    );
  }
  return [...(value.data as unknown as Iterable<number>)];
}

export function fail(op: string, inputs: readonly Value[], why: string): never {
  throw new TracingError(`${op}(${inputs.map(describe).join(', ')}): ${why}.`, { op, inputs: inputs.map(describe) });
}

/** NumPy broadcasting. */
export function broadcast(a: readonly number[], b: readonly number[], op: string, inputs: readonly Value[]): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) fail(op, inputs, `shapes do not broadcast at axis ${i} (${x} against ${y})`);
    return x === 1 ? y : x;
  });
}

const positive = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);
export const int = (attrs: Attrs, name: string, fallback = 0): number => {
  const a = attrs[name];
  return a?.kind === 'int' && typeof a.value === 'number' ? a.value : fallback;
};
const list = (attrs: Attrs, name: string): readonly number[] => {
  const a = attrs[name];
  return a?.kind === 'int' && typeof a.value !== 'number' ? a.value : [];
};
const bool = (attrs: Attrs, name: string): boolean => {
  const a = attrs[name];
  return a?.kind === 'bool' && a.value;
};
export const str = (attrs: Attrs, name: string): string => {
  const a = attrs[name];
  return a?.kind === 'string' ? String(a.value) : '';
};

export const same: ShapeFunction = ([x]) => [[...x!.shape]];
export const binary: ShapeFunction = (inputs, _, op) => [broadcast(inputs[0]!.shape, inputs[1]!.shape, op, inputs)];
export const sameAs =
  (index: number): ShapeFunction =>
  (inputs) => [[...inputs[index]!.shape]];
export const fromConstant =
  (index: number, what: string): ShapeFunction =>
  (inputs, _, op) => [ints(inputs[index]!, op, what)];

export const reduction: ShapeFunction = (inputs, attrs, op) => {
  const [x, axes] = inputs as [Value, Value];
  const rank = x.shape.length;
  const drop = new Set(ints(axes, op, 'axis').map((a) => positive(a, rank)));
  const keep = bool(attrs, 'keep_dims');
  return [x.shape.flatMap((d, i) => (drop.has(i) ? (keep ? [1] : []) : [d]))];
};

export const argReduction: ShapeFunction = (inputs, _, op) => {
  const [x, axis] = inputs as [Value, Value];
  const a = positive(ints(axis, op, 'axis')[0]!, x.shape.length);
  return [x.shape.filter((_d, i) => i !== a)];
};

export const matMul: ShapeFunction = (inputs, attrs, op) => {
  const [a, b] = inputs as [Value, Value];
  const adjointA = bool(attrs, 'transpose_a') || bool(attrs, 'adj_x');
  const adjointB = bool(attrs, 'transpose_b') || bool(attrs, 'adj_y');
  if (a.shape.length < 2 || b.shape.length < 2) fail(op, inputs, 'both operands need two dimensions at least');
  const [ar, ac] = a.shape.slice(-2) as [number, number];
  const [br, bc] = b.shape.slice(-2) as [number, number];
  const inner = [adjointA ? ar : ac, adjointB ? bc : br];
  if (inner[0] !== inner[1]) fail(op, inputs, `inner dimensions ${inner[0]} and ${inner[1]} differ`);
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2), op, inputs);
  return [[...batch, adjointA ? ac : ar, adjointB ? br : bc]];
};

/** Output length of a window along one axis. */
function windowed(size: number, window: number, stride: number, padding: string, dilation = 1): number {
  const extent = (window - 1) * dilation + 1;
  return padding === 'SAME' ? Math.ceil(size / stride) : Math.ceil((size - extent + 1) / stride);
}

function explicitPads(attrs: Attrs, axis: number): number {
  const pads = list(attrs, 'explicit_paddings');
  return pads.length > 0 ? pads[2 * axis]! + pads[2 * axis + 1]! : 0;
}

/** conv2d, conv3d and depthwise conv2d on channels-last data. */
export const convolution: ShapeFunction = (inputs, attrs, op) => {
  const [x, filter] = inputs as [Value, Value];
  if (str(attrs, 'data_format').startsWith('NC')) fail(op, inputs, 'only channels-last data is supported');
  const strides = list(attrs, 'strides');
  const dilations = list(attrs, 'dilations');
  const padding = str(attrs, 'padding');
  const spatial = x.shape.slice(1, -1).map((size, i) => {
    const padded = padding === 'EXPLICIT' ? size + explicitPads(attrs, i + 1) : size;
    return windowed(padded, filter.shape[i]!, strides[i + 1] ?? 1, padding, dilations[i + 1] ?? 1);
  });
  const last = filter.shape.at(-1)!;
  const channels = op.startsWith('Depthwise') ? filter.shape.at(-2)! * last : last;
  return [[x.shape[0]!, ...spatial, channels]];
};

export const pool: ShapeFunction = (inputs, attrs, op) => {
  const x = inputs[0]!;
  if (str(attrs, 'data_format').startsWith('NC')) fail(op, inputs, 'only channels-last data is supported');
  const size = list(attrs, 'ksize');
  const strides = list(attrs, 'strides');
  return [x.shape.map((d, i) => windowed(d, size[i]!, strides[i]!, str(attrs, 'padding')))];
};

export const padShape: ShapeFunction = (inputs, _, op) => {
  const pads = ints(inputs[1]!, op, 'paddings');
  return [inputs[0]!.shape.map((d, i) => d + pads[2 * i]! + pads[2 * i + 1]!)];
};

export const reshape: ShapeFunction = (inputs, _, op) => {
  const size = inputs[0]!.shape.reduce((n, d) => n * d, 1);
  const shape = ints(inputs[1]!, op, 'shape');
  const hole = shape.indexOf(-1);
  const known = shape.reduce((n, d, i) => (i === hole ? n : n * d), 1);
  if (hole >= 0) shape[hole] = known === 0 ? 0 : size / known;
  if (shape.reduce((n, d) => n * d, 1) !== size || !shape.every(Number.isInteger)) {
    fail(op, inputs, `${size} elements do not fill [${shape.join(',')}]`);
  }
  return [shape];
};

export const slice: ShapeFunction = (inputs, _, op) => {
  const x = inputs[0]!;
  const size = ints(inputs[2]!, op, 'size');
  const begin = size.includes(-1) || inputs[1]!.data ? ints(inputs[1]!, op, 'begin') : null;
  return [
    size.map((s, i) => {
      const length = s === -1 ? x.shape[i]! - begin![i]! : s;
      if (length < 0 || (begin && begin[i]! + length > x.shape[i]!)) {
        fail(op, inputs, `axis ${i}: begin ${begin?.[i] ?? '?'} and size ${length} exceed ${x.shape[i]}`);
      }
      return length;
    }),
  ];
};

export const stridedSlice: ShapeFunction = (inputs, attrs, op) => {
  const x = inputs[0]!;
  const [begin, end, strides] = [1, 2, 3].map((i) => ints(inputs[i]!, op, 'begin, end or strides')) as [
    Shape,
    Shape,
    Shape,
  ];
  const on = (name: string, i: number): boolean => (int(attrs, name) & (1 << i)) !== 0;
  const out: Shape = [];
  let axis = 0;
  for (let i = 0; i < begin.length; i++) {
    if (on('ellipsis_mask', i)) {
      const after = begin.slice(i + 1).filter((_v, k) => !on('new_axis_mask', i + 1 + k)).length;
      while (axis < x.shape.length - after) out.push(x.shape[axis++]!);
      continue;
    }
    if (on('new_axis_mask', i)) {
      out.push(1);
      continue;
    }
    const d = x.shape[axis++]!;
    const s = strides[i]!;
    const clamp = (v: number): number => Math.min(Math.max(v < 0 ? v + d : v, s > 0 ? 0 : -1), s > 0 ? d : d - 1);
    if (on('shrink_axis_mask', i)) continue;
    const from = on('begin_mask', i) ? (s > 0 ? 0 : d - 1) : clamp(begin[i]!);
    const to = on('end_mask', i) ? (s > 0 ? d : -1) : clamp(end[i]!);
    out.push(Math.max(0, Math.ceil((to - from) / s)));
  }
  return [[...out, ...x.shape.slice(axis)]];
};

export const concat: ShapeFunction = (inputs, _, op) => {
  const parts = inputs.slice(0, -1);
  const shape = [...parts[0]!.shape];
  const axis = positive(ints(inputs.at(-1)!, op, 'axis')[0]!, shape.length);
  for (const part of parts.slice(1)) {
    if (part.shape.length !== shape.length || part.shape.some((d, i) => i !== axis && d !== shape[i])) {
      fail(op, inputs, `shapes differ off axis ${axis}`);
    }
    shape[axis]! += part.shape[axis]!;
  }
  return [shape];
};

export const gather: ShapeFunction = (inputs, attrs, op) => {
  const [params, indices] = inputs as [Value, Value];
  const axis = positive(ints(inputs[2]!, op, 'axis')[0]!, params.shape.length);
  const batch = int(attrs, 'batch_dims');
  return [[...params.shape.slice(0, axis), ...indices.shape.slice(batch), ...params.shape.slice(axis + 1)]];
};

export const einsum: ShapeFunction = (inputs, attrs, op) => {
  const equation = str(attrs, 'equation').replace(/\s/g, '');
  const [left, right] = equation.split('->');
  if (right === undefined || equation.includes('.')) fail(op, inputs, `equation '${equation}' is not supported`);
  const sizes = new Map<string, number>();
  left!.split(',').forEach((term, k) => [...term].forEach((c, i) => sizes.set(c, inputs[k]!.shape[i]!)));
  return [[...right].map((c) => sizes.get(c)!)];
};

export const split: ShapeFunction = (inputs, _, op) => {
  const x = inputs[0]!;
  const axis = positive(ints(inputs[2]!, op, 'axis')[0]!, x.shape.length);
  return ints(inputs[1]!, op, 'sizes').map((s) => x.shape.map((d, i) => (i === axis ? s : d)));
};

export const unpack: ShapeFunction = (inputs, attrs) => {
  const axis = positive(int(attrs, 'axis'), inputs[0]!.shape.length);
  return Array.from({ length: int(attrs, 'num') }, () => inputs[0]!.shape.filter((_d, i) => i !== axis));
};

export const pack: ShapeFunction = (inputs, attrs) => {
  const shape = [...inputs[0]!.shape];
  shape.splice(positive(int(attrs, 'axis'), shape.length + 1), 0, inputs.length);
  return [shape];
};

export const expandDims: ShapeFunction = (inputs, _, op) => {
  const shape = [...inputs[0]!.shape];
  shape.splice(positive(ints(inputs[1]!, op, 'axis')[0]!, shape.length + 1), 0, 1);
  return [shape];
};

export const oneHot: ShapeFunction = (inputs, attrs, op) => {
  const shape = [...inputs[0]!.shape];
  const axis = int(attrs, 'axis', -1);
  shape.splice(axis === -1 ? shape.length : axis, 0, ints(inputs[1]!, op, 'depth')[0]!);
  return [shape];
};

export const range: ShapeFunction = (inputs, _, op) => {
  const [start, stop, step] = inputs.map((v) => ints(v, op, 'start, stop or step')[0]!) as [number, number, number];
  return [[Math.max(0, Math.ceil(Math.abs((stop - start) / step)))]];
};

export const topK: ShapeFunction = (inputs, _, op) => {
  const shape = [...inputs[0]!.shape.slice(0, -1), ints(inputs[1]!, op, 'k')[0]!];
  return [shape, [...shape]];
};

export const batchNorm: ShapeFunction = ([x, scale]) => {
  const channels = [...scale!.shape];
  return [[...x!.shape], channels, channels, channels, channels];
};

export const resize: ShapeFunction = (inputs, _, op) => {
  const [b, , , c] = inputs[0]!.shape as [number, number, number, number];
  return [[b, ...ints(inputs[1]!, op, 'size'), c]];
};

export const dotShape = ([lhs, rhs]: readonly Value[], dimensions: string): Shape => {
  // DotDimensionNumbers: packed or single varints of contracting (1, 2) and batch (3, 4) dimensions.
  const fields: number[][] = [[], [], [], []];
  const bytes = Buffer.from(dimensions, 'latin1');
  for (let i = 0; i < bytes.length;) {
    const tag = bytes[i++]!;
    const field = fields[(tag >> 3) - 1]!;
    if ((tag & 7) === 0) field.push(bytes[i++]!);
    else for (let n = bytes[i++]!; n > 0; n--) field.push(bytes[i++]!);
  }
  const [lc, rc, lb, rb] = fields as [number[], number[], number[], number[]];
  const free = (shape: readonly number[], ...taken: number[][]): Shape =>
    shape.filter((_d, i) => !taken.flat().includes(i));
  return [...lb.map((i) => lhs!.shape[i]!), ...free(lhs!.shape, lc, lb), ...free(rhs!.shape, rc, rb)];
};
