/** Products of one row (src/kernels/one_row) of random inputs, with what their reference gives, to compare kernels with. */
import { oneRowReference, weightOfCodes } from '../../src/kernels/one_row/reference.js';
import type { OneRowSpec } from '../../src/kernels/one_row/spec.js';
import type { Memory } from '../../src/kernels/interpret/ttir.js';

const random = (size: number, seed: number): Float32Array => {
  let state = seed;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
};

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
  const given = {
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
    const codes = Int32Array.from(random((out * inner) / 8, 5), (v) => v * 2 ** 31);
    const bf16 = format.levels === 'bfloat16';
    const levels = (seed: number): Float32Array => {
      const bits = new Int32Array(random(out * groups, seed).buffer);
      const kept = bf16 ? bits.map((x) => x & 0xffff0000) : bits;
      matrix.push(bf16 ? packed(kept) : new Float32Array(kept.buffer));
      return new Float32Array(kept.buffer);
    };
    matrix.push(codes);
    weight = weightOfCodes(format, inner, codes, levels(6), levels(7));
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
  const want = oneRowReference(spec, { ...given, weight, epilogue: { ...given, place } });
  return { memory, y, want, scale: Math.sqrt(want.reduce((sum, v) => sum + v * v, 0) / want.length) };
}
