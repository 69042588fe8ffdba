import { expect } from 'chai';
import { rowProductFits, rowProductKernel, type RowProductSpec } from '../../src/jit/row_product.js';
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

/** The same in float64 and plain loops, from a matrix of weights. */
function expected(
  spec: RowProductSpec,
  w: (row: number, column: number) => number,
  x: Float32Array,
  gate: Float32Array,
  gamma: Float32Array,
  residual: Float32Array,
): number[] {
  const { inner, out, norm } = spec;
  const v = Array.from(x, (value, i) => (spec.gated ? (value * gate[i]!) / (1 + Math.exp(-gate[i]!)) : value));
  if (norm) {
    const span = inner / norm.groups;
    for (let g = 0; g < norm.groups; g++) {
      let squares = 0;
      for (let i = g * span; i < (g + 1) * span; i++) squares += v[i]! ** 2;
      for (let i = g * span; i < (g + 1) * span; i++) v[i]! *= gamma[i]! / Math.sqrt(squares / span + norm.epsilon);
    }
  }
  return Array.from({ length: out }, (_, row) =>
    v.reduce((sum, value, i) => sum + w(row, i) * value, spec.residual ? residual[row]! : 0),
  );
}

function check({ spec }: Case, tiling?: { rows: number; columns: number; warps: number; unroll: number }): void {
  const { out, inner, format } = spec;
  const x = random(inner, 1);
  const gate = random(inner + 5, 2).map((v) => 3 * v); // longer than it need be, as a projection is
  const gamma = random(inner, 3);
  const residual = random(out, 4);
  const y = new Float32Array(out).fill(NaN);
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
    x,
    ...(spec.gated ? [gate] : []),
    ...(spec.norm ? [gamma] : []),
    ...matrix,
    ...(spec.residual ? [residual] : []),
    y,
  ];
  runTtir(rowProductKernel(spec, tiling), memory);
  const want = expected(spec, weight, x, gate, gamma, residual);
  const scale = Math.sqrt(want.reduce((sum, v) => sum + v * v, 0) / out);
  want.forEach((value, row) => expect(y[row], `row ${row}`).to.be.closeTo(value, 2e-6 * scale * Math.sqrt(inner)));
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
      for (const columns of [32, 128]) {
        for (const unroll of [1, 3]) check(cases[3]!, { rows, columns, warps: 4, unroll });
      }
    }
    for (const columns of [128, 256])
      check({ name: '', spec: { ...cases[5]!.spec, inner: 768 } }, { rows: 4, columns, warps: 2, unroll: 3 });
  });

  it('says where there is no kernel', () => {
    const fits = (spec: Partial<RowProductSpec>): boolean =>
      rowProductFits({ out: 8, inner: 256, format: { kind: 'bfloat16' }, ...spec });
    expect(fits({})).to.equal(true);
    expect(fits({ inner: 250 }), 'no power of two').to.equal(false);
    expect(fits({ inner: 288, norm: { groups: 5, epsilon: 1 } }), 'groups that do not divide').to.equal(false);
    expect(fits({ format: { kind: 'codes', groupSize: 512 } }), 'a group longer than a row').to.equal(false);
    expect(fits({ out: 2 ** 23, inner: 1024 }), 'offsets beyond int32').to.equal(false);
  });
});
