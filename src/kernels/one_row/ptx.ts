/**
 * Products of one row in PTX, for matrices of bfloat16 and of four-bit codes. One block for each multiprocessor: it asks for its
 * first rows, makes the vector ready while they are on their way, and then always has a row ahead of the one that it multiplies.
 */
import { ArgumentError } from '../../base/errors.js';
import type { PtxWriter } from '../../jit/custom_call/ptx.js';
import type { TritonKernel } from '../../jit/custom_call/triton.js';
import { OneRowBlock } from './ptx_block.js';
import { OneRowEpilogue } from './ptx_epilogue.js';
import { rowReader } from './ptx_rows.js';
import { oneRowPtxFits, oneRowPtxTiling } from './ptx_tiling.js';
import { preparer } from './ptx_vector.js';
import type { OneRowSpec } from './spec.js';

/** The kernel of a product, over the inputs of parametersOf and the result. */
export function oneRowPtxKernel(spec: OneRowSpec, tiling = oneRowPtxTiling(spec)): TritonKernel {
  return oneRowPtxWriter(spec, tiling).kernel(tiling.blocks);
}

/** The kernel as it is written. */
export function oneRowPtxWriter(spec: OneRowSpec, tiling = oneRowPtxTiling(spec)): PtxWriter {
  if (!oneRowPtxFits(spec, tiling))
    throw new ArgumentError('oneRowPtxKernel: no kernel for these sizes', { spec, tiling });
  const w = new OneRowBlock(spec, tiling);
  const { k } = w;
  const rows = rowReader(w);
  rows.ask(0);
  rows.ask(1);
  const after = new OneRowEpilogue(w);
  const vector = preparer(w);
  vector.write();
  after.prepare();
  k.barrier();
  const scale = vector.finish();
  rows.begin(vector);
  const row = k.int('mov.u32', w.firstRow);
  k.unless(k.compare('ge.u32', row, w.count), () => {
    const multiply = (stage: number): void => {
      const sum = k.across('add.f32', rows.multiply(stage));
      const to = after.sum(row);
      k.when(k.compare('eq.u32', k.lane, 0), () => k.run('st.shared.f32', `[${to}]`, sum));
      k.run('add.u32', row, row, w.step);
    };
    k.repeat(() => {
      multiply(0);
      k.unless(k.compare('ge.u32', row, w.count), () => multiply(1));
      return k.compare('lt.u32', row, w.count);
    });
  });
  k.barrier();
  after.finish(scale);
  return k;
}
