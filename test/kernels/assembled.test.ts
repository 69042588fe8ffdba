/** Kernels in PTX are PTX: NVIDIA's assembler takes them, of small sizes and of the public models'. Left out where it is not installed. */
import { expect } from 'chai';
import { fewRowsWriter } from '../../src/kernels/few_rows/ptx.js';
import type { FewRowsSpec } from '../../src/kernels/few_rows/spec.js';
import { fewRowsFits } from '../../src/kernels/few_rows/tiling.js';
import type { PtxWriter } from '../../src/jit/custom_call/ptx.js';
import { oneRowPtxWriter } from '../../src/kernels/one_row/ptx.js';
import { oneRowPtxFits } from '../../src/kernels/one_row/ptx_tiling.js';
import type { WeightFormat, OneRowSpec } from '../../src/kernels/one_row/spec.js';
import { ssmStepWriter } from '../../src/kernels/ssm_step/ptx.js';
import { ssmStepFits, type SsmStepSpec } from '../../src/kernels/ssm_step/spec.js';
import { assemble, entryOf, findPtxas } from '../support/ptxas.js';
import { PUBLIC_SIZES } from '../support/public_sizes.js';

const ALL = [0, Infinity] as const;

function states(): Map<string, PtxWriter> {
  const kernels = new Map<string, PtxWriter>();
  const sizes = [2, 8, 12, 16, 64].flatMap((p) => [4, 8, 16, 128].map((n) => ({ heads: 4, p, n, groups: 2 })));
  const models = PUBLIC_SIZES.map(({ heads, groups }) => ({ heads, p: 64, n: 128, groups }));
  for (const { heads, p, n, groups } of [...sizes, ...models])
    for (const dtype of ['float32', 'bfloat16'] as const)
      for (const norm of ['blocked', 'row_major', null] as const) {
        const inner = heads * p;
        const step = { stride: inner + 2 * groups * n + 2 * heads, offset: 0 };
        const gate = { stride: inner, offset: 0, activated: norm === null };
        const spec: SsmStepSpec = { rows: 3, heads, headDim: p, groups, stateSize: n, dtype, step, gate, norm };
        if (ssmStepFits(spec)) kernels.set(`state ${heads} x ${p} x ${n} ${dtype} ${norm}`, ssmStepWriter(spec));
      }
  return kernels;
}

function fewRows(): Map<string, PtxWriter> {
  const kernels = new Map<string, PtxWriter>();
  const put = (name: string, spec: FewRowsSpec): void => {
    if (fewRowsFits(spec)) kernels.set(`${name} ${spec.rows} x ${spec.out} x ${spec.inner}`, fewRowsWriter(spec));
  };
  for (const rows of [2, 5, 8, 17, 32, 64])
    for (const { d, inner, heads, channels, projected, vocabulary } of [
      { d: 32, inner: 64, heads: 4, channels: 96, projected: 164, vocabulary: 53 },
      ...PUBLIC_SIZES,
    ]) {
      const epilogueOnly = rows > 32 || undefined;
      const epilogue = { first: inner, channels, taps: 4, heads, bias: true, limit: ALL, layers: 2, masked: true };
      const norm = { partials: 40, epsilon: 1e-5 };
      put('first', { rows, out: projected, inner: d, epilogueOnly, norm, epilogue });
      put('second', { rows, out: d, inner, epilogueOnly, norm, residual: true });
      if (!epilogueOnly) put('head', { rows, out: vocabulary, inner: d, norm });
    }
  return kernels;
}

function rows(): Map<string, PtxWriter> {
  const kernels = new Map<string, PtxWriter>();
  const formats: WeightFormat[] = [
    { kind: 'bfloat16' },
    { kind: 'codes', groupSize: 128, levels: 'bfloat16' },
    { kind: 'codes', groupSize: 128, levels: 'float32' },
  ];
  for (const format of formats)
    for (const { d, groups, inner, heads, channels, projected, vocabulary } of PUBLIC_SIZES) {
      const put = (name: string, spec: Omit<OneRowSpec, 'format'>): void => {
        const whole = { ...spec, format };
        if (oneRowPtxFits(whole)) kernels.set(`${name} ${d} ${JSON.stringify(format)}`, oneRowPtxWriter(whole));
      };
      const epilogue = { first: inner, channels, taps: 4, heads, bias: true, limit: [0.1, 2] as const };
      put('first', { out: projected, inner: d, norm: { groups: 1, epsilon: 1e-5 }, epilogue });
      put('second', { out: d, inner, norm: { groups, epsilon: 1e-5 }, residual: true });
      put('head', { out: vocabulary, inner: d, norm: { groups: 1, epsilon: 1e-5 } });
    }
  return kernels;
}

describe('kernels in PTX', function () {
  this.timeout(120_000);
  const ptxas = findPtxas();
  before(function () {
    if (!ptxas) this.skip();
  });

  for (const [name, kernels, least] of [
    ['states', states, 80],
    ['products of a few rows', fewRows, 60],
    ['products of one row', rows, 40],
  ] as const)
    it(`are taken by NVIDIA's assembler: ${name}`, () => {
      const texts = new Map([...kernels()].map(([key, k]) => [key, entryOf(k)]));
      expect(texts.size, 'kernels').to.be.greaterThan(least);
      expect([...assemble(ptxas!, texts)]).to.deep.equal([]);
    });

  it('are refused where they are none', () => {
    expect([
      ...assemble(ptxas!, new Map([['wrong', '.version 8.0\n.target sm_80\nand.b32 r1;\n']])).keys(),
    ]).to.deep.equal(['wrong']);
  });
});
