/**
 * A matrix of bfloat16 times a few rows of bfloat16 in PTX, by the card's matrix instructions. Results are float32, and what follows the
 * product, the epilogue, is in the kernel.
 */
import { ArgumentError } from '../../base/errors.js';
import type { PtxWriter } from '../../jit/custom_call/ptx.js';
import type { TritonKernel } from '../../jit/custom_call/triton.js';
import { FewRowsBlock } from './ptx_block.js';
import { prefetchEpilogue, writeEpilogue } from './ptx_epilogue.js';
import { Rows, Weights } from './ptx_operands.js';
import type { FewRowsSpec } from './spec.js';
import { fewRowsFits, fewRowsTiling } from './tiling.js';

const MULTIPLY = 'mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32';

/** Rows whose factors a warp works out at a time. */
const FACTORS = 4;

/** Factors of the norm, 1 / sqrt(mean square + epsilon), into shared memory. */
function prepareNorm(w: FewRowsBlock): void {
  const { k, spec, factors } = w;
  if (!spec.norm || !factors) return;
  const { partials, epsilon } = spec.norm;
  const lead = k.compare('eq.u32', k.lane, 0);
  for (let begin = 0; begin < spec.rows; begin += FACTORS * w.warps) {
    const starts = Array.from({ length: FACTORS }, (_, i) => begin + i * w.warps).filter((row) => row < spec.rows);
    const all = starts.map((start) => {
      const row = k.int('add.u32', k.warp, start);
      const there = k.compare('lt.u32', row, spec.rows);
      const from = k.address(k.set('d', 'mad.wide.u32', row, 4 * partials, w.pointer('squares')), k.lane, 4);
      const terms: string[] = [];
      for (let at = 0; at < partials; at += 32) {
        const term = k.float('mov.f32', 0);
        const own =
          partials - at < 32 ? k.set('p', 'and.pred', there, k.compare('lt.u32', k.lane, partials - at)) : there;
        k.when(own, () => k.run('ld.global.nc.f32', term, `[${from}+${4 * at}]`));
        terms.push(term);
      }
      return { row, there, terms };
    });
    for (const { row, there, terms } of all) {
      const sum = k.across(
        'add.f32',
        terms.reduce((a, b) => k.float('add.f32', a, b)),
      );
      const mean = k.float('fma.rn.f32', sum, 1 / spec.inner, k.float('mov.f32', epsilon));
      const factor = k.float('rsqrt.approx.f32', mean);
      const to = k.place(factors, row, 4);
      k.when(k.set('p', 'and.pred', lead, there), () => k.run('st.shared.f32', `[${to}]`, factor));
    }
  }
}

/** A lane's results: of each eight of the given rows, four. */
type Sums = string[][];

/** Puts a warp's results into shared memory, [splitK][rows][pitch]. */
function putResults(w: FewRowsBlock, sums: Sums): void {
  const { k, spec, pitch } = w;
  const column = k.int('shl.b32', k.int('and.b32', k.lane, 3), 1); // of the rows
  const row = k.int('mad.lo.u32', w.kPart, spec.rows, column);
  const own = k.int('mad.lo.u32', w.tile, 16, k.int('shr.u32', k.lane, 2));
  const to = k.place(w.shared, k.int('mad.lo.u32', row, pitch, own), 4);
  const put = (): void =>
    sums.forEach((four, eight) =>
      four.forEach((x, i) => {
        // results 0 and 1 are of two rows side by side, 2 and 3 the same of the matrix' row 8 below
        const most = spec.rows - 8 * eight - (i & 1);
        if (most <= 0) return;
        const there = most < 8 ? k.compare('lt.u32', column, most) : null;
        const at = `[${to}+${4 * ((8 * eight + (i & 1)) * pitch + 8 * (i >> 1))}]`;
        k.when(there, () => k.run('st.shared.f32', at, x));
      }),
    );
  if (w.idle) k.unless(w.idle, put);
  else put();
}

/** The kernel, over fewRowsParameters. */
export function fewRowsKernel(spec: FewRowsSpec, tiling = fewRowsTiling(spec)): TritonKernel {
  return fewRowsWriter(spec, tiling).kernel(tiling.blocks);
}

/** The kernel as it is written. */
export function fewRowsWriter(spec: FewRowsSpec, tiling = fewRowsTiling(spec)): PtxWriter {
  if (!fewRowsFits(spec, tiling)) throw new ArgumentError('fewRowsKernel: no kernel for these sizes', { spec, tiling });
  const w = new FewRowsBlock(spec, tiling);
  if (!spec.epilogueOnly) {
    multiply(w);
    return w.k;
  }
  prefetchEpilogue(w);
  prepareNorm(w);
  w.k.barrier();
  writeEpilogue(w);
  return w.k;
}

function multiply(w: FewRowsBlock): void {
  const { k, spec, tiling } = w;
  const { kTile, splitK, tilesAhead } = tiling;
  const weights = new Weights(w);
  weights.begin();
  const rows = new Rows(w);
  for (let i = 1; i < tiling.stages; i++) rows.ask();
  prefetchEpilogue(w);
  prepareNorm(w);
  const eights = Math.ceil(spec.rows / 8);
  const sums: Sums = Array.from({ length: eights }, () => Array.from({ length: 4 }, () => k.float('mov.f32', 0)));
  const left = k.int('mov.u32', w.rounds);
  k.repeat(() => {
    const more = k.compare('gt.u32', left, 1);
    const next = weights.next(more);
    for (let i = 0; i < tilesAhead; i++) {
      // the k-tile is there, and nobody reads the one before any more
      rows.wait();
      k.barrier();
      rows.ask();
      const one = (turn: number): void => {
        const slot = (i * kTile) / splitK + turn;
        const others = Array.from({ length: eights }, (_, eight) => rows.load(turn, eight));
        weights.fragments(slot).forEach((four, half) =>
          sums.forEach((own, eight) => {
            const result = `{${own.join(', ')}}`;
            const pair = `{${others[eight]!.slice(2 * half, 2 * half + 2).join(', ')}}`;
            k.run(MULTIPLY, result, `{${four.join(', ')}}`, pair, result);
          }),
        );
        weights.load(slot, next);
      };
      const turns = (): void => Array.from({ length: kTile / splitK }).forEach((_, turn) => one(turn));
      if (w.idle) k.unless(w.idle, turns);
      else turns();
      rows.done();
    }
    weights.go();
    k.run('add.u32', left, left, -1);
    return more;
  });
  k.run('cp.async.wait_group', 0);
  k.barrier();
  putResults(w, sums);
  k.barrier();
  writeEpilogue(w);
}
