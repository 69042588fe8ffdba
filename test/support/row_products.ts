/** Row products (src/kernels/one_row) of random inputs in float64 and plain loops, to compare kernels with. */
import type { OneRowSpec } from '../../src/kernels/one_row/spec.js';
import type { Memory } from '../../src/kernels/interpret/ttir.js';

const random = (size: number, seed: number): Float32Array => {
  let state = seed;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
};

interface Inputs {
  x: Float32Array;
  gamma: Float32Array;
  residual: Float32Array;
  context: Float32Array;
  taps: Float32Array;
  bias: Float32Array;
  dtBias: Float32Array;
  ALog: Float32Array;
}

const silu = (v: number): number => v / (1 + Math.exp(-v));

/** The same in float64 and plain loops, from a matrix of weights. */
function expected(
  spec: OneRowSpec,
  w: (row: number, column: number) => number,
  given: Inputs,
  place: number,
): number[] {
  const { inner, out, norm, epilogue } = spec;
  const { x, gamma, residual } = given;
  const v = Array.from(x);
  if (norm) {
    const span = inner / norm.groups;
    for (let g = 0; g < norm.groups; g++) {
      let squares = 0;
      for (let i = g * span; i < (g + 1) * span; i++) squares += v[i]! ** 2;
      for (let i = g * span; i < (g + 1) * span; i++) v[i]! *= gamma[i]! / Math.sqrt(squares / span + norm.epsilon);
    }
  }
  const y = Array.from({ length: out }, (_, row) =>
    v.reduce((sum, value, i) => sum + w(row, i) * value, spec.residual ? residual[row]! : 0),
  );
  if (!epilogue) return y;
  const { first, channels, taps, heads, limit } = epilogue;
  const xBC = Array.from({ length: channels }, (_, c) => {
    let sum = (epilogue.bias ? given.bias[c]! : 0) + y[first + c]! * given.taps[c * taps + taps - 1]!;
    for (let i = 0; i < taps - 1; i++) sum += given.context[place + i * channels + c]! * given.taps[c * taps + i]!;
    return silu(sum);
  });
  const dt = Array.from({ length: heads }, (_, h) => {
    const softplus = Math.log1p(Math.exp(y[first + channels + h]! + given.dtBias[h]!));
    return Math.min(Math.max(softplus, limit[0]), limit[1]);
  });
  const decay = dt.map((step, h) => Math.exp(-Math.exp(given.ALog[h]!) * step));
  return [...y.map((v, row) => (row < first ? silu(v) : v)), ...xBC, ...dt, ...decay];
}

/** Numbers of bfloat16, given by their bits as float32, two in a word. */
const packed = (bits: Int32Array): Int32Array =>
  Int32Array.from({ length: Math.ceil(bits.length / 2) }, (_, i) => (bits[2 * i]! >>> 16) | (bits[2 * i + 1] ?? 0));

/** A product with random inputs. */
export interface RowProductCase {
  /** Buffers of the kernel's parameters; the last one is `y`, of NaN. */
  memory: Memory;
  y: Float32Array;
  want: number[];
  /** Root of the mean square of what is wanted. */
  scale: number;
}

export function rowProductCase(spec: OneRowSpec): RowProductCase {
  const { out, inner, format, epilogue } = spec;
  const place = epilogue ? 2 * epilogue.channels * (epilogue.taps - 1) : 0;
  const given: Inputs = {
    x: random(inner, 1),
    gamma: random(inner, 3),
    residual: random(out, 4),
    context: random(place + (epilogue ? epilogue.channels * epilogue.taps : 0), 10),
    taps: random(epilogue ? epilogue.channels * epilogue.taps : 0, 11),
    bias: random(epilogue?.channels ?? 0, 12),
    // down to step sizes as small as models have them
    dtBias: random(epilogue?.heads ?? 0, 13).map((v) => 8 * v - 6),
    ALog: random(epilogue?.heads ?? 0, 14).map((v) => 3 * v),
  };
  const y = new Float32Array(out + (epilogue ? epilogue.channels + 2 * epilogue.heads : 0)).fill(NaN);
  const matrix: Memory = [];
  let weight: (row: number, column: number) => number;
  if (format.kind === 'codes') {
    const groups = inner / format.groupSize;
    const words = format.groupSize / 8;
    const codes = Int32Array.from(random((out * inner) / 8, 5), (v) => v * 2 ** 31);
    const narrow = format.levels === 'bfloat16';
    const levels = (seed: number): Float32Array => {
      const bits = new Int32Array(random(out * groups, seed).buffer);
      const kept = narrow ? bits.map((x) => x & 0xffff0000) : bits;
      matrix.push(narrow ? packed(kept) : new Float32Array(kept.buffer));
      return new Float32Array(kept.buffer);
    };
    matrix.push(codes);
    const [scale, zero] = [levels(6), levels(7)];
    weight = (row, column) => {
      const group = Math.floor(column / format.groupSize);
      const [position, word] = [Math.floor((column % format.groupSize) / words), column % words];
      const code = (codes[(row * inner) / 8 + group * words + word]! >>> (4 * position)) & 15;
      return (code - 8) * scale[row * groups + group]! + zero[row * groups + group]!;
    };
  } else if (format.kind === 'bfloat16') {
    const bits = new Int32Array(random(out * inner, 8).buffer).map((x) => x & 0xffff0000);
    matrix.push(packed(bits));
    const w = new Float32Array(bits.buffer);
    weight = (row, column) => w[row * inner + column]!;
  } else {
    const w = random(out * inner, 8);
    matrix.push(w);
    weight = (row, column) => w[row * inner + column]!;
  }
  const memory = [
    given.x,
    ...(spec.norm ? [given.gamma] : []),
    ...matrix,
    ...(spec.residual ? [given.residual] : []),
    ...(epilogue
      ? [
          Int32Array.of(place),
          given.context,
          given.taps,
          ...(epilogue.bias ? [given.bias] : []),
          given.dtBias,
          given.ALog,
        ]
      : []),
    y,
  ];
  const want = expected(spec, weight, given, place);
  return { memory, y, want, scale: Math.sqrt(want.reduce((sum, v) => sum + v * v, 0) / want.length) };
}
