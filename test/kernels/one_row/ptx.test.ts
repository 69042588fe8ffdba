import { expect } from 'chai';
import { oneRowPtxKernel } from '../../../src/kernels/one_row/ptx.js';
import { oneRowPtxFits, oneRowPtxTiling, type OneRowPtxTiling } from '../../../src/kernels/one_row/ptx_tiling.js';
import type { OneRowSpec } from '../../../src/kernels/one_row/spec.js';
import { runPtx } from '../../../src/kernels/interpret/ptx.js';
import { PUBLIC_SIZES } from '../../support/public_sizes.js';
import { rowProductCase } from '../../support/row_products.js';

const norm = { groups: 1, epsilon: 1e-5 };
const bfloat16 = { kind: 'bfloat16' } as const;
const codes = { kind: 'codes', groupSize: 128, levels: 'bfloat16' } as const;
const small = (tiling: Partial<OneRowPtxTiling> = {}): OneRowPtxTiling => ({
  blocks: 3,
  warps: 4,
  splitK: 1,
  ...tiling,
});

function check(spec: OneRowSpec, tiling: OneRowPtxTiling): void {
  const { memory, y, want, scale } = rowProductCase(spec);
  runPtx(oneRowPtxKernel(spec, tiling), memory);
  const { out, inner, epilogue, format } = spec;
  // before codes, a channel is rounded to half of 1/32512 of the largest of its group
  const tolerance = format.kind === 'codes' ? 2e-4 * scale : 2e-6 * scale * Math.sqrt(inner);
  want.forEach((value, row) => expect(y[row], `row ${row}`).to.be.closeTo(value, tolerance));
  if (epilogue && !epilogue.limit[0] && format.kind !== 'codes')
    want
      .slice(out + epilogue.channels, out + epilogue.channels + epilogue.heads)
      .forEach((value, h) => expect(y[out + epilogue.channels + h]! / value, `step ${h}`).to.be.closeTo(1, 2e-5));
}

describe('products of one row in PTX', () => {
  const epilogue = { first: 30, channels: 24, taps: 4, heads: 5, bias: true, limit: [0, Infinity] as const };
  const cases: Record<string, OneRowSpec> = {
    'a bare product': { out: 20, inner: 512, format: bfloat16 },
    'a norm before it, rows of several k-tiles': { out: 21, inner: 768, format: bfloat16, norm },
    'norm and residual': { out: 22, inner: 512, format: bfloat16, norm, residual: true },
    'a norm by groups': { out: 23, inner: 1024, format: bfloat16, norm: { groups: 4, epsilon: 1e-3 }, residual: true },
    'an input projection with all that follows it': { out: 59, inner: 256, format: bfloat16, norm, epilogue },
    'an input projection without bias, step sizes within limits': {
      out: 59,
      inner: 256,
      format: bfloat16,
      norm,
      epilogue: { ...epilogue, bias: false, taps: 2, limit: [0.001, 0.1] },
    },
    'fewer rows than blocks': { out: 2, inner: 256, format: bfloat16, norm },
    codes: { out: 20, inner: 512, format: codes },
    'codes with scales of float32': { out: 20, inner: 768, format: { ...codes, levels: 'float32' } },
    'codes, of more than one k-tile': { out: 19, inner: 1280, format: codes, norm },
    'codes, with all that follows': { out: 59, inner: 768, format: codes, norm, epilogue },
    'codes, in groups of a norm': {
      out: 22,
      inner: 1024,
      format: codes,
      norm: { groups: 2, epsilon: 1e-5 },
      residual: true,
    },
  };
  for (const [name, spec] of Object.entries(cases))
    it(`is the same as in plain loops: ${name}`, () => check(spec, small()));

  it('does not depend on how it is shared out', () => {
    for (const tiling of [{ blocks: 1 }, { warps: 1 }, { warps: 8 }, { blocks: 5, warps: 2 }])
      for (const name of [
        'a norm before it, rows of several k-tiles',
        'codes, with all that follows',
        'a norm by groups',
      ])
        check(cases[name]!, small(tiling));
    for (const splitK of [2, 4]) {
      check(cases['a norm by groups']!, small({ splitK }));
      check(cases['codes, in groups of a norm']!, small({ splitK }));
      check(cases['codes, of more than one k-tile']!, small({ splitK: 2 }));
    }
  });

  it('takes a vector of zeros', () => {
    const spec: OneRowSpec = { out: 8, inner: 256, format: codes, norm };
    const { memory, y } = rowProductCase(spec);
    memory[0]!.fill(0);
    runPtx(oneRowPtxKernel(spec, small()), memory);
    expect([...y]).to.deep.equal(new Array(8).fill(0));
  });

  it('fits the projections and heads of all public sizes, on cards of 14 to 144 multiprocessors', () => {
    const cards = [14, 46, 108, 132, 144];
    for (const [format, card] of [bfloat16, codes].flatMap((format) => cards.map((card) => [format, card] as const)))
      for (const { d, groups, inner, heads, channels, projected: out, vocabulary } of PUBLIC_SIZES) {
        const after = { first: inner, channels, taps: 4, heads, bias: true, limit: [0, Infinity] as const };
        const specs: OneRowSpec[] = [
          { out, inner: d, format, norm, epilogue: after },
          { out: d, inner, format, norm: { groups, epsilon: 1e-5 }, residual: true },
          { out: vocabulary, inner: d, format, norm },
        ];
        for (const spec of specs) {
          const tiling = oneRowPtxTiling(spec, card);
          expect(oneRowPtxFits(spec, tiling), `${d}: ${spec.out} x ${spec.inner}`).to.equal(true);
          expect(tiling.warps % tiling.splitK).to.equal(0);
          expect(tiling.blocks % card).to.equal(0);
        }
      }
  });

  it('has a block for each multiprocessor', () => {
    const spec: OneRowSpec = { out: 4096, inner: 4096, format: bfloat16, norm };
    for (const blocks of [46, 108, 144]) {
      const tiling = oneRowPtxTiling(spec, blocks);
      expect(tiling.blocks).to.equal(blocks);
      expect(oneRowPtxFits(spec, tiling)).to.equal(true);
    }
    // an H100's where the card is not known
    expect(oneRowPtxTiling(spec, 0).blocks).to.equal(132);
  });

  it('says where there is no kernel', () => {
    const fits = (spec: Partial<OneRowSpec>): boolean =>
      oneRowPtxFits({ out: 8, inner: 512, format: bfloat16, ...spec });
    expect(fits({})).to.equal(true);
    expect(fits({ format: { kind: 'float32' } }), 'float32').to.equal(false);
    expect(fits({ format: { ...codes, groupSize: 64 } }), 'other groups').to.equal(false);
    expect(fits({ format: { ...codes, exact: true } }), 'a vector that must not be rounded').to.equal(false);
    expect(fits({ inner: 384 }), 'no whole k-tiles').to.equal(false);
    expect(fits({ norm: { groups: 4, epsilon: 1 } }), 'norms that end within a warp').to.equal(false);
    expect(fits({ out: 2 ** 22, inner: 512 }), 'offsets beyond int32').to.equal(false);
    expect(fits({ inner: 16384 }), 'a vector beyond shared memory').to.equal(false);
    const one = { blocks: 1, warps: 16, splitK: 1 };
    const rows = (out: number): boolean => oneRowPtxFits({ out, inner: 512, format: bfloat16, residual: true }, one);
    expect([rows(512), rows(513)], 'more rows than threads').to.deep.equal([true, false]);
  });
});
