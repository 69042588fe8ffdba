import { expect } from 'chai';
import {
  rowProductFits,
  rowProductKernel,
  type RowProductSpec,
  type RowProductTiling,
} from '../../src/jit/row_product.js';
import { type Memory, runTtir } from '../support/ttir.js';

const random = (size: number, seed: number): Float32Array => {
  let state = seed;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
};

interface Case {
  name: string;
  spec: RowProductSpec;
}

interface Inputs {
  x: Float32Array;
  gate: Float32Array;
  skip: Float32Array;
  gamma: Float32Array;
  residual: Float32Array;
  context: Float32Array;
  taps: Float32Array;
  bias: Float32Array;
  dtBias: Float32Array;
}

const silu = (v: number): number => v / (1 + Math.exp(-v));

/** The same in float64 and plain loops, from a matrix of weights. */
function expected(
  spec: RowProductSpec,
  w: (row: number, column: number) => number,
  given: Inputs,
  place: number,
): number[] {
  const { inner, out, norm, skip, activations } = spec;
  const { x, gate, gamma, residual } = given;
  const v = Array.from(x, (value, i) => {
    const whole = skip ? value + given.skip[Math.floor(i / (inner / skip.heads))]! * gate[skip.offset + i]! : value;
    return spec.gated ? whole * silu(gate[i]!) : whole;
  });
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
  if (!activations) return y;
  const { first, channels, taps, heads, limit } = activations;
  const xBC = Array.from({ length: channels }, (_, c) => {
    let sum = (activations.bias ? given.bias[c]! : 0) + y[first + c]! * given.taps[c * taps + taps - 1]!;
    for (let i = 0; i < taps - 1; i++) sum += given.context[place + i * channels + c]! * given.taps[c * taps + i]!;
    return silu(sum);
  });
  const dt = Array.from({ length: heads }, (_, h) => {
    const softplus = Math.log1p(Math.exp(y[first + channels + h]! + given.dtBias[h]!));
    return Math.min(Math.max(softplus, limit[0]), limit[1]);
  });
  return [...y, ...xBC, ...dt];
}

function check({ spec }: Case, tiling?: RowProductTiling): void {
  const { out, inner, format, activations, skip } = spec;
  const place = activations ? 2 * activations.channels * (activations.taps - 1) : 0;
  const given: Inputs = {
    x: random(inner, 1),
    gate: random(inner + (skip ? skip.offset : 5), 2).map((v) => 3 * v), // longer than it need be, as a projection is
    skip: random(skip?.heads ?? 0, 9),
    gamma: random(inner, 3),
    residual: random(out, 4),
    context: random(place + (activations ? activations.channels * activations.taps : 0), 10),
    taps: random(activations ? activations.channels * activations.taps : 0, 11),
    bias: random(activations?.channels ?? 0, 12),
    // down to step sizes as small as models have them
    dtBias: random(activations?.heads ?? 0, 13).map((v) => 8 * v - 6),
  };
  const y = new Float32Array(out + (activations ? activations.channels + activations.heads : 0)).fill(NaN);
  const matrix: Memory = [];
  let weight: (row: number, column: number) => number;
  if (format.kind === 'codes') {
    const groups = inner / format.groupSize;
    const words = format.groupSize / 8;
    const codes = Int32Array.from(random((out * inner) / 8, 5), (v) => v * 2 ** 31);
    const [scale, least] = [random(out * groups, 6), random(out * groups, 7)];
    matrix.push(codes, scale, least);
    weight = (row, column) => {
      const group = Math.floor(column / format.groupSize);
      const [position, word] = [Math.floor((column % format.groupSize) / words), column % words];
      const code = (codes[(row * inner) / 8 + group * words + word]! >>> (4 * position)) & 15;
      return code * scale[row * groups + group]! + least[row * groups + group]!;
    };
  } else {
    const w = random(out * inner, 8);
    matrix.push(w);
    weight = (row, column) => w[row * inner + column]!;
  }
  const memory = [
    given.x,
    ...(spec.gated || skip ? [given.gate] : []),
    ...(skip ? [given.skip] : []),
    ...(spec.norm ? [given.gamma] : []),
    ...matrix,
    ...(spec.residual ? [given.residual] : []),
    ...(activations
      ? [Int32Array.of(place), given.context, given.taps, ...(activations.bias ? [given.bias] : []), given.dtBias]
      : []),
    y,
  ];
  runTtir(rowProductKernel(spec, tiling), memory);
  const want = expected(spec, weight, given, place);
  const scale = Math.sqrt(want.reduce((sum, v) => sum + v * v, 0) / want.length);
  want.forEach((value, row) => expect(y[row], `row ${row}`).to.be.closeTo(value, 2e-6 * scale * Math.sqrt(inner)));
  // small step sizes are exact in their own measure
  if (activations && !activations.limit[0])
    want
      .slice(out + activations.channels)
      .forEach((value, h) => expect(y[out + activations.channels + h]! / value, `step ${h}`).to.be.closeTo(1, 2e-5));
}

describe('row products on a GPU', () => {
  const norm = { groups: 1, epsilon: 1e-5 };
  const cases: Case[] = [
    { name: 'a bare product', spec: { out: 16, inner: 64, format: { kind: 'float32' } } },
    { name: 'rows that do not fill the last program', spec: { out: 21, inner: 96, format: { kind: 'float32' }, norm } },
    { name: 'a norm before it', spec: { out: 24, inner: 192, format: { kind: 'float32' }, norm } },
    {
      name: 'gate, norm and residual',
      spec: { out: 10, inner: 256, format: { kind: 'float32' }, norm, gated: true, residual: true },
    },
    {
      name: 'a norm by groups',
      spec: {
        out: 9,
        inner: 512,
        format: { kind: 'float32' },
        norm: { groups: 4, epsilon: 1e-3 },
        gated: true,
        residual: true,
      },
    },
    {
      name: 'skip, gate, norm and residual',
      spec: {
        out: 10,
        inner: 256,
        format: { kind: 'float32' },
        skip: { heads: 8, offset: 300 },
        norm,
        gated: true,
        residual: true,
      },
    },
    {
      name: 'an input projection with all that follows it',
      spec: {
        out: 64 + 80 + 4,
        inner: 96,
        format: { kind: 'float32' },
        norm,
        activations: { first: 64, channels: 80, taps: 4, heads: 4, bias: true, limit: [0, Infinity] },
      },
    },
    {
      name: 'an input projection without bias, step sizes within limits',
      spec: {
        out: 32 + 48 + 6,
        inner: 64,
        format: { kind: 'float32' },
        norm,
        activations: { first: 32, channels: 48, taps: 2, heads: 6, bias: false, limit: [0.001, 0.1] },
      },
    },
    { name: 'codes', spec: { out: 8, inner: 384, format: { kind: 'codes', groupSize: 128 }, norm } },
    {
      name: 'codes in small groups, rows that do not fill the last program',
      spec: { out: 13, inner: 192, format: { kind: 'codes', groupSize: 32 }, norm, residual: true },
    },
    {
      name: 'codes, a norm by groups',
      spec: {
        out: 8,
        inner: 512,
        format: { kind: 'codes', groupSize: 32 },
        norm: { groups: 2, epsilon: 1e-5 },
        gated: true,
        residual: true,
      },
    },
  ];
  for (const one of cases) it(`is the same as in plain loops: ${one.name}`, () => check(one));

  it('does not depend on the pieces it works in', () => {
    for (const rows of [2, 16]) {
      for (const columns of [64, 128, 512]) {
        for (const turns of [1, 3, 99]) {
          check(cases[3]!, { rows, columns, warps: 4, turns });
          check(cases[4]!, { rows, columns, warps: 4, turns });
        }
        check(cases[6]!, { rows, columns, warps: 4, turns: 5 });
        check(cases[10]!, { rows, columns: 4 * columns, warps: 4, turns: 5 });
      }
    }
    for (const one of [1, 3, 5, 6, 9, 10])
      for (const turns of [1, 2, 3]) check(cases[one]!, { rows: 4, columns: 256, warps: 4, turns, ahead: true });
    for (const columns of [256, 512])
      check({ name: '', spec: { ...cases[8]!.spec, inner: 768 } }, { rows: 4, columns, warps: 2, turns: 2 });
  });

  it('says where there is no kernel', () => {
    const fits = (spec: Partial<RowProductSpec>): boolean =>
      rowProductFits({ out: 8, inner: 256, format: { kind: 'bfloat16' }, ...spec });
    expect(fits({})).to.equal(true);
    expect(fits({ inner: 250 }), 'no power of two').to.equal(false);
    expect(fits({ inner: 288, norm: { groups: 5, epsilon: 1 } }), 'groups that do not divide').to.equal(false);
    expect(fits({ format: { kind: 'codes', groupSize: 512 } }), 'a group longer than a row').to.equal(false);
    expect(fits({ out: 2 ** 23, inner: 1024 }), 'offsets beyond int32').to.equal(false);
    expect(fits({ inner: 64 * 9 }), 'nine pieces').to.equal(false);
    expect(fits({ inner: 64 * 7 }), 'seven pieces').to.equal(true);
  });
});
