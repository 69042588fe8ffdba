import { expect } from 'chai';
import type { PtxWriter } from '../../src/jit/custom_call/ptx.js';
import { SHARED_BYTES } from '../../src/jit/custom_call/ptx.js';
import { fewRowsWriter } from '../../src/kernels/few_rows/ptx.js';
import type { FewRowsSpec } from '../../src/kernels/few_rows/spec.js';
import { fewRowsShared, fewRowsTiling } from '../../src/kernels/few_rows/tiling.js';
import { oneRowPtxWriter } from '../../src/kernels/one_row/ptx.js';
import { oneRowPtxTiling, oneRowShared } from '../../src/kernels/one_row/ptx_tiling.js';
import type { OneRowSpec, WeightFormat } from '../../src/kernels/one_row/spec.js';
import { fitsShared, sharedBytes, type SharedArrays } from '../../src/kernels/shared_memory.js';
import { ssmStepWriter } from '../../src/kernels/ssm_step/ptx.js';
import { ssmStepShared, type SsmStepSpec, ssmStepTiling } from '../../src/kernels/ssm_step/spec.js';
import { PUBLIC_SIZES } from '../support/public_sizes.js';

/** The arrays that a kernel's text declares are those worked out from its sizes. */
function expectDeclared(k: PtxWriter, arrays: SharedArrays<string>): void {
  const declared = [...k.text().matchAll(/\.shared \.align 16 \.b8 \w+\[(\d+)\]/g)].map((m) => Number(m[1]));
  const sorted = (all: number[]): number[] => all.sort((a, b) => a - b);
  expect(sorted(declared)).to.deep.equal(sorted(Object.values(arrays).filter((bytes) => bytes > 0)));
}

describe('shared memory of kernels in PTX', () => {
  const limit = [0, Infinity] as const;

  it('is what is worked out, of one row', () => {
    const formats: WeightFormat[] = [{ kind: 'bfloat16' }, { kind: 'codes', groupSize: 128, levels: 'bfloat16' }];
    for (const format of formats)
      for (const { d, groups, inner, heads, channels, projected: out } of PUBLIC_SIZES) {
        const specs: OneRowSpec[] = [
          { out: d, inner, format, norm: { groups, epsilon: 1e-5 }, residual: true },
          { out: d, inner: d, format },
          { out, inner: d, format, epilogue: { first: inner, channels, taps: 4, heads, bias: true, limit } },
        ];
        for (const spec of specs) {
          const tiling = oneRowPtxTiling(spec);
          expectDeclared(oneRowPtxWriter(spec, tiling), oneRowShared(spec, tiling));
        }
      }
  });

  it('is what is worked out, of few rows', () => {
    for (const rows of [2, 17, 64])
      for (const { d, inner } of PUBLIC_SIZES) {
        const spec: FewRowsSpec = { rows, out: d, inner, epilogueOnly: rows > 32, residual: true };
        for (const norm of [undefined, { partials: 40, epsilon: 1e-5 }]) {
          const tiling = fewRowsTiling({ ...spec, norm });
          expectDeclared(fewRowsWriter({ ...spec, norm }, tiling), fewRowsShared({ ...spec, norm }, tiling));
        }
      }
  });

  it('is what is worked out, of a step of the recurrence', () => {
    for (const norm of ['blocked', null] as const) {
      const sizes = { rows: 2, heads: 24, headDim: 64, groups: 1, stateSize: 128, dtype: 'bfloat16' } as const;
      const step = { stride: 1536 + 256 + 48, offset: 0 };
      const spec: SsmStepSpec = { ...sizes, step, gate: { stride: 1536, offset: 0, activated: true }, norm };
      const tiling = ssmStepTiling(spec);
      expectDeclared(ssmStepWriter(spec, tiling), ssmStepShared(spec, tiling));
    }
  });

  it('counts arrays from one multiple of 16 bytes to the next', () => {
    expect(sharedBytes({ a: 1, b: 16, c: 20, none: 0 })).to.equal(64);
    expect([fitsShared({ a: SHARED_BYTES }), fitsShared({ a: SHARED_BYTES, b: 4 })]).to.deep.equal([true, false]);
  });
});
