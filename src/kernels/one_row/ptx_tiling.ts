/** How a product of one row in PTX is shared out among blocks and warps, and whether it can be. */
import { multiprocessors } from '../../runtime/index.js';
import { fitsShared, type SharedArrays } from '../shared_memory.js';
import type { OneRowSpec } from './spec.js';

/** How a product of one row is shared out: a matter of speed only. */
export interface OneRowPtxTiling {
  /** Blocks: as many as the card runs at a time. */
  blocks: number;
  warps: number;
  /** Warps that share a row, each with some of its channels. A power of two. */
  splitK: number;
}

/** Sizes that were fastest on an H100. @param processors multiprocessors of the card; where that is 0, not known, those of an H100 */
export function oneRowPtxTiling(spec: OneRowSpec, processors = multiprocessors()): OneRowPtxTiling {
  const { inner, out, format, epilogue, residual } = spec;
  const warps = 16;
  const atOnce = processors || 132;
  // a block ends a row a thread, or keeps the sums of twice as many; small cards run several blocks one after another
  const rows = (epilogue || residual ? 1 : 2) * 32 * warps;
  const blocks = atOnce * Math.ceil(out / (atOnce * rows));
  // values that a warp can hold of a row, twice
  const most = format.kind === 'codes' ? 4096 : 2560;
  let splitK = 1;
  while (inner / splitK > most) splitK *= 2;
  // of few rows no warp stays idle
  if ((warps / splitK) * blocks > 2 * out && inner % (512 * splitK) === 0) splitK *= 2;
  return { blocks, warps, splitK };
}

/** Bytes between groups of 128 channels in shared memory: two groups that lanes read together lie in different banks. */
export const GROUP_BYTES = 320;

/** Channels that a thread makes ready in a pass over the vector, and passes there are. */
export const perThread = ({ format }: OneRowSpec): number => (format.kind === 'codes' ? 8 : 4);
export const passesOf = (spec: OneRowSpec, { warps }: OneRowPtxTiling): number =>
  Math.ceil(spec.inner / perThread(spec) / (32 * warps));

/** Most rows of a block. */
export const rowsOfBlock = ({ out }: OneRowSpec, { blocks }: OneRowPtxTiling): number => Math.ceil(out / blocks);

/** Of the vector its values; of codes by group the size of a step and the sum; for norms sums of squares and factors. Of each row sums, and what is ready for its epilogue. */
type OneRowArray = 'values' | 'steps' | 'totals' | 'squares' | 'factors' | 'sums' | 'ready';

/** The arrays of a block in shared memory. */
export function oneRowShared(spec: OneRowSpec, tiling: OneRowPtxTiling): SharedArrays<OneRowArray> {
  const { inner, norm, format, epilogue } = spec;
  const groups = inner / 128;
  const codes = format.kind === 'codes';
  const rows = rowsOfBlock(spec, tiling);
  return {
    values: codes ? groups * GROUP_BYTES : inner * 4,
    steps: codes ? 4 * groups : 0,
    totals: codes ? 4 * groups : 0,
    squares: norm ? 4 * tiling.warps * passesOf(spec, tiling) : 0,
    factors: norm && norm.groups > 1 ? 4 * norm.groups : 0,
    sums: 4 * tiling.splitK * rows,
    ready: epilogue ? 8 * rows : 0,
  };
}

/** Whether the kernel can be written for these sizes. */
export function oneRowPtxFits(spec: OneRowSpec, tiling = oneRowPtxTiling(spec)): boolean {
  const { out, inner, format, norm, epilogue, residual } = spec;
  const { warps, splitK } = tiling;
  if (format.kind === 'float32') return false;
  if (format.kind === 'codes' && (format.groupSize !== 128 || format.exact)) return false;
  const span = norm ? inner / norm.groups : inner;
  const share = inner / splitK;
  // norms end with a warp's channels, and a part of a row with a k-tile
  if (inner % 256 !== 0 || splitK > warps || share > 4096 || span % 256 !== 0) return false;
  if (norm && norm.groups > 1 && (share % 256 !== 0 || (share % span !== 0 && span % share !== 0))) return false;
  if (share % (format.kind === 'codes' ? 128 : 256) !== 0) return false;
  if ((epilogue || residual) && rowsOfBlock(spec, tiling) > 32 * warps) return false;
  return fitsShared(oneRowShared(spec, tiling)) && out * inner < 2 ** 31;
}
