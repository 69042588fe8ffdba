import { expect } from 'chai';
import { decodeFloat32, encodeFloat32 } from '../../../src/base/stored_dtypes.js';
import { fewRowsKernel } from '../../../src/kernels/few_rows/ptx.js';
import { fewRowsReference } from '../../../src/kernels/few_rows/reference.js';
import { fewRowsParameters, type FewRowsSpec } from '../../../src/kernels/few_rows/spec.js';
import {
  fewRowsFits,
  type FewRowsTiling,
  fewRowsTiling,
  squarePartials,
  warpsOf,
} from '../../../src/kernels/few_rows/tiling.js';
import { PUBLIC_SIZES } from '../../support/public_sizes.js';
import { runPtx } from '../../../src/kernels/interpret/ptx.js';

const numbers = (size: number, seed: number, scale = 1): Float32Array => {
  let state = seed * 7919;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return scale * (state / 2 ** 31 - 1);
  });
};
const bytes = (x: Float32Array): Uint8Array => encodeFloat32(x, 'BF16');
const round = (x: Float32Array): Float32Array => decodeFloat32(bytes(x), 'BF16');
/** [rows, size] as [size/32, rows, 32] */
const blocked = (x: Float32Array, rows: number): Float32Array => {
  const size = x.length / rows;
  const out = new Float32Array(x.length);
  for (let row = 0; row < rows; row++)
    for (let c = 0; c < size; c++) out[(Math.floor(c / 32) * rows + row) * 32 + (c % 32)] = x[row * size + c]!;
  return out;
};

type Values = Record<string, Float32Array | Int32Array>;
const LAYER = 1;

/** Inputs by the names of fewRowsParameters, as float32; x is [rows, inner]. */
function inputs(spec: FewRowsSpec, off: readonly number[]): Values {
  const { rows, out, inner, norm, epilogue: after } = spec;
  const channels = after?.channels ?? 0;
  const taps = after?.taps ?? 1;
  const width = (after?.layers ?? 0) * (taps - 1) * channels;
  return {
    x: round(numbers(rows * inner, 1)),
    weights: round(numbers(out * inner, 2)),
    raw: round(numbers(rows * out, 12, 3)),
    squares: numbers(rows * (norm?.partials ?? 0), 3).map((x) => 2 + x),
    place: Int32Array.of(LAYER * (taps - 1) * channels),
    context: numbers(rows * width, 4),
    taps: numbers(channels * taps, 5),
    bias: numbers(channels, 6),
    dt_bias: numbers(after?.heads ?? 0, 7, 3),
    A_log: numbers(after?.heads ?? 0, 8),
    mask: Float32Array.from({ length: rows }, (_, row) => Number(!off.includes(row))),
    residual: numbers(rows * out, 9, 4),
    gamma: numbers(out, 10),
  };
}

function run(spec: FewRowsSpec, given: Values, tiling: FewRowsTiling): Record<string, Float32Array> {
  const { rows, out, epilogue: after } = spec;
  const size = out + (after?.heads ?? 0);
  const context = Float32Array.from(given['context']!);
  const results: Record<string, ArrayBufferView> = {
    y: new Float32Array(rows * size).fill(NaN),
    moved: context,
    next: new Uint16Array(rows * out).fill(0x7fc0),
    sums: new Float32Array(rows * squarePartials(spec, tiling)).fill(NaN),
  };
  const stored: Record<string, ArrayBufferView> = {
    ...given,
    ...results,
    context,
    x: bytes(blocked(given['x'] as Float32Array, rows)),
    raw: bytes(given['raw'] as Float32Array),
    weights: bytes(given['weights'] as Float32Array),
  };
  runPtx(
    fewRowsKernel(spec, tiling),
    fewRowsParameters(spec).map(([name]) => stored[name]!),
  );
  const next = results['next']!;
  return {
    ...(results as Record<string, Float32Array>),
    next: decodeFloat32(new Uint8Array(next.buffer), 'BF16'),
  };
}

function check(spec: FewRowsSpec, tiling: FewRowsTiling, off: readonly number[] = []): Record<string, Float32Array> {
  const given = inputs(spec, off);
  const want = fewRowsReference(spec, given, off);
  const got = run(spec, given, tiling);
  const { rows, inner, residual, epilogue } = spec;
  const tolerance = 4e-6 * Math.sqrt(inner);
  want.y.forEach((x, i) => expect(got['y']![i], `y ${i}`).to.be.closeTo(x, tolerance * Math.max(1, Math.abs(x))));
  if (epilogue) want.moved.forEach((x, i) => expect(got['moved']![i], `context ${i}`).to.be.closeTo(x, 2 * tolerance));
  if (!residual) return got;
  const next = spec.epilogueOnly ? want.next : blocked(Float32Array.from(want.next), rows);
  next.forEach((x, i) => expect(got['next']![i], `next ${i}`).to.be.closeTo(x, 2 ** -8 * Math.abs(x) + tolerance));
  want.sums.forEach((sum, row) => {
    const partials = squarePartials(spec, tiling);
    const all = got['sums']!.subarray(row * partials, (row + 1) * partials).reduce((a, b) => a + b, 0);
    expect(all / sum, `squares ${row}`).to.be.closeTo(1, 1e-5);
  });
  return got;
}

describe('a matrix times a few rows in PTX', () => {
  const base: FewRowsSpec = { rows: 3, out: 40, inner: 256 };
  const norm = { partials: 5, epsilon: 1e-3 };
  const epilogue = {
    first: 30,
    channels: 24,
    taps: 4,
    heads: 5,
    bias: true,
    limit: [0, Infinity] as const,
    layers: 3,
    masked: false,
  };
  const small: FewRowsTiling = { blocks: 2, splitK: 2, kTile: 2, stages: 3, tilesAhead: 2 };
  const cases: Record<string, FewRowsSpec> = {
    'a bare product': base,
    'eight rows': { ...base, rows: 8 },
    'eleven rows, with a norm': { ...base, rows: 11, norm },
    'a norm of many partial sums': { ...base, norm: { ...norm, partials: 70 } },
    'a stream that is added, and what the next product takes': { ...base, out: 96, norm, residual: true },
    'an input projection with all that follows': { ...base, out: 59, norm, epilogue },
    'without bias, with limits, two taps': {
      ...base,
      out: 59,
      norm,
      epilogue: { ...epilogue, bias: false, taps: 2, limit: [0.2, 0.9] },
    },
  };
  for (const [name, spec] of Object.entries(cases))
    it(`is the same as in plain loops: ${name}`, () => {
      check(spec, small);
    });

  it('does not depend on how it is shared out', () => {
    const all = { ...base, out: 59, norm, epilogue };
    const tilings = [
      { ...small, blocks: 1 },
      { ...small, blocks: 5 },
      { ...small, splitK: 1, kTile: 1, tilesAhead: 4, stages: 5 },
      { ...small, stages: 2, tilesAhead: 1 },
      { ...small, splitK: 4, kTile: 4 },
    ];
    for (const tiling of tilings) {
      check(all, tiling);
      check(cases['a stream that is added, and what the next product takes']!, tiling);
    }
  });

  it('may be given, and what follows is the same', () => {
    const given = { ...base, rows: 11, out: 59, norm, epilogueOnly: true };
    for (const spec of [
      { ...given, epilogue: { ...epilogue, masked: true } },
      { ...given, out: 64, residual: true },
    ]) {
      check(spec, fewRowsTiling(spec), [3]);
      expect(squarePartials(spec)).to.equal(2);
    }
  });

  it('leaves rows as they are that are switched off', () => {
    const spec = { ...base, out: 59, norm, epilogue: { ...epilogue, masked: true } };
    const off = [0, 2];
    const { y, moved } = check(spec, small, off);
    const given = inputs(spec, off);
    const [size, width] = [59 + 5, 3 * 3 * 24];
    for (const row of off) {
      expect([...y!.subarray(row * size + 54, (row + 1) * size)]).to.deep.equal([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
      expect(moved!.subarray(row * width, (row + 1) * width)).to.deep.equal(
        given['context']!.subarray(row * width, (row + 1) * width),
      );
    }
  });

  it('gives a row what it gives it alone', () => {
    const spec = { ...base, out: 96, norm, residual: true };
    const given = inputs(spec, []);
    const together = run(spec, given, small);
    for (let row = 0; row < spec.rows; row++) {
      const part = <T extends Float32Array | Int32Array>(x: T): T =>
        x.slice((row * x.length) / spec.rows, ((row + 1) * x.length) / spec.rows) as T;
      const own = Object.fromEntries(['x', 'squares', 'residual'].map((name) => [name, part(given[name]!)]));
      const alone = run({ ...spec, rows: 1 }, { ...given, ...own }, small);
      for (const name of ['y', 'sums']) expect([...alone[name]!], name).to.deep.equal([...part(together[name]!)]);
    }
  });

  it('fits all public sizes', () => {
    for (const { d, inner, heads, channels, projected, vocabulary } of PUBLIC_SIZES)
      for (const rows of [2, 5, 8, 24, 32]) {
        const after = { ...epilogue, first: inner, channels, heads, layers: 64, masked: true };
        const specs: FewRowsSpec[] = [
          { rows, out: projected, inner: d, norm: { partials: 132, epsilon: 1e-5 }, epilogue: after },
          { rows, out: d, inner, norm: { partials: 40, epsilon: 1e-5 }, residual: true },
          { rows, out: vocabulary, inner: d, norm: { partials: 132, epsilon: 1e-5 } },
        ];
        // H100, its PCIe form, A100, L4
        for (const spec of specs)
          for (const processors of [132, 114, 108, 58]) {
            const tiling = fewRowsTiling(spec, processors);
            expect(fewRowsFits(spec, tiling), `${rows} rows of ${spec.out} x ${spec.inner}`).to.equal(true);
            expect(warpsOf(spec, tiling)).to.be.at.least(4);
            expect(tiling.blocks % processors).to.equal(0);
          }
      }
  });

  it('says where there is no kernel', () => {
    const fits = (change: Partial<FewRowsSpec>): boolean => fewRowsFits({ ...base, inner: 512, ...change });
    expect(fits({})).to.equal(true);
    expect(fits({ rows: 33 }), 'more rows than are multiplied so').to.equal(false);
    expect(fits({ inner: 520 }), 'no whole k-blocks').to.equal(false);
    expect(fits({ out: 40, residual: true }), 'a stream of no whole k-blocks').to.equal(false);
    expect(fits({ out: 2 ** 22 }), 'offsets beyond int32').to.equal(false);
  });
});
