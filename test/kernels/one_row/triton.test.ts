import { expect } from 'chai';
import type { OneRowSpec } from '../../../src/kernels/one_row/spec.js';
import { oneRowTritonKernel } from '../../../src/kernels/one_row/triton.js';
import { oneRowTritonFits, type OneRowTritonTiling } from '../../../src/kernels/one_row/triton_tiling.js';
import { takesTriton } from '../../../src/jit/custom_call/triton.js';
import { rowProductCase } from '../../support/row_products.js';
import { runTtir } from '../../../src/kernels/interpret/ttir.js';

interface Case {
  name: string;
  spec: OneRowSpec;
}

function check({ spec }: Case, tiling?: OneRowTritonTiling): void {
  const { memory, y, want, scale } = rowProductCase(spec);
  runTtir(oneRowTritonKernel(spec, tiling), memory);
  const { out, inner, epilogue } = spec;
  want.forEach((value, row) => expect(y[row], `row ${row}`).to.be.closeTo(value, 2e-6 * scale * Math.sqrt(inner)));
  // small step sizes are exact in their own measure
  if (epilogue && !epilogue.limit[0])
    want
      .slice(out + epilogue.channels, out + epilogue.channels + epilogue.heads)
      .forEach((value, h) => expect(y[out + epilogue.channels + h]! / value, `step ${h}`).to.be.closeTo(1, 2e-5));
}

describe("products of one row in Triton's language", () => {
  const norm = { groups: 1, epsilon: 1e-5 };
  const cases: Case[] = [
    { name: 'a bare product', spec: { out: 16, inner: 64, format: { kind: 'float32' } } },
    { name: 'rows that do not fill the last program', spec: { out: 21, inner: 96, format: { kind: 'float32' }, norm } },
    { name: 'a norm before it', spec: { out: 24, inner: 192, format: { kind: 'float32' }, norm } },
    {
      name: 'norm and residual',
      spec: { out: 10, inner: 256, format: { kind: 'float32' }, norm, residual: true },
    },
    {
      name: 'a norm by groups',
      spec: {
        out: 9,
        inner: 512,
        format: { kind: 'float32' },
        norm: { groups: 4, epsilon: 1e-3 },
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
        epilogue: { first: 64, channels: 80, taps: 4, heads: 4, bias: true, limit: [0, Infinity] },
      },
    },
    {
      name: 'an input projection without bias, step sizes within limits',
      spec: {
        out: 32 + 48 + 6,
        inner: 64,
        format: { kind: 'float32' },
        norm,
        epilogue: { first: 32, channels: 48, taps: 2, heads: 6, bias: false, limit: [0.001, 0.1] },
      },
    },
    { name: 'codes', spec: { out: 8, inner: 384, format: { kind: 'codes', groupSize: 128, levels: 'float32' }, norm } },
    {
      name: 'codes in small groups, rows that do not fill the last program',
      spec: { out: 13, inner: 192, format: { kind: 'codes', groupSize: 32, levels: 'float32' }, norm, residual: true },
    },
    {
      name: 'codes, a norm by groups',
      spec: {
        out: 8,
        inner: 512,
        format: { kind: 'codes', groupSize: 32, levels: 'float32' },
        norm: { groups: 2, epsilon: 1e-5 },
        residual: true,
      },
    },
  ];
  for (const one of cases) it(`is the same as in plain loops: ${one.name}`, () => check(one));

  it('does not depend on the tiles it works in', () => {
    for (const rows of [2, 16]) {
      for (const kTile of [64, 128, 512]) {
        for (const turns of [1, 3, 99]) {
          check(cases[3]!, { rows, kTile, warps: 4, turns });
          check(cases[4]!, { rows, kTile, warps: 4, turns });
        }
        check(cases[5]!, { rows, kTile, warps: 4, turns: 5 });
        check(cases[9]!, { rows, kTile: 4 * kTile, warps: 4, turns: 5 });
      }
    }
    for (const one of [1, 3, 5, 8, 9])
      for (const turns of [1, 2, 3]) check(cases[one]!, { rows: 4, kTile: 256, warps: 4, turns, prefetch: true });
    for (const kTile of [256, 512])
      check({ name: '', spec: { ...cases[7]!.spec, inner: 768 } }, { rows: 4, kTile, warps: 2, turns: 2 });
  });

  it('says where there is no kernel', () => {
    const fits = (spec: Partial<OneRowSpec>): boolean =>
      oneRowTritonFits({ out: 8, inner: 256, format: { kind: 'bfloat16' }, ...spec });
    expect(fits({})).to.equal(true);
    expect(fits({ inner: 250 }), 'no power of two').to.equal(false);
    expect(fits({ inner: 288, norm: { groups: 5, epsilon: 1 } }), 'groups that do not divide').to.equal(false);
    expect(
      fits({ format: { kind: 'codes', groupSize: 512, levels: 'float32' } }),
      'a group longer than a row',
    ).to.equal(false);
    expect(fits({ out: 2 ** 23, inner: 1024 }), 'offsets beyond int32').to.equal(false);
    expect(fits({ inner: 64 * 9 }), 'nine k-tiles').to.equal(false);
    expect(fits({ inner: 64 * 7 }), 'seven k-tiles').to.equal(true);
  });

  it('is left to XLA on GPUs before compute capability 8.0, and taken where the driver does not say', () => {
    expect([70, 75, 80, 86, 90, 120].map(takesTriton)).to.deep.equal([false, false, true, true, true, true]);
    expect(takesTriton(0)).to.equal(true);
  });
});
