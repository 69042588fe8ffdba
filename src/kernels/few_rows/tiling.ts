/** How a product of a few rows is shared out among blocks and warps, and whether it can be: a matter of speed only. */
import { multiprocessors } from '../../runtime/index.js';
import { fitsShared, type SharedArrays } from '../shared_memory.js';
import type { FewRowsSpec } from './spec.js';

/** How a product is shared out: a matter of speed only. */
export interface FewRowsTiling {
  /** Blocks, of which each has its rows of the matrix. */
  blocks: number;
  /** Warps that share 16 rows of the matrix, each of them some k-blocks of 32 channels. A power of two. */
  splitK: number;
  /** K-blocks of 32 channels, of all rows, that come into shared memory at a time. */
  kTile: number;
  /** Pipeline stages: k-tiles there is room for in shared memory. All but one are under way while that one is multiplied. */
  stages: number;
  /** K-tiles whose weights a warp has under way. */
  tilesAhead: number;
}

/** Most rows of the matrix in a block. */
const rowsOfBlock = ({ out }: FewRowsSpec, { blocks }: FewRowsTiling): number => Math.ceil(out / blocks);
/** Of a block: 16 rows of the matrix each. */
export const tilesOf = (spec: FewRowsSpec, tiling: FewRowsTiling): number => Math.ceil(rowsOfBlock(spec, tiling) / 16);
/** A power of two, as Triton has it: some may have no tile. */
export const warpsOf = (spec: FewRowsSpec, tiling: FewRowsTiling): number =>
  spec.epilogueOnly ? 8 : tiling.splitK * 2 ** Math.ceil(Math.log2(tilesOf(spec, tiling)));
/** Of a block, of its rows of the matrix: what a warp takes at a time in the end. */
export const segmentsOf = (spec: FewRowsSpec, tiling: FewRowsTiling): number =>
  Math.ceil(rowsOfBlock(spec, tiling) / 32);
/** Sums of squares of each row. */
export const squarePartials = (spec: FewRowsSpec, tiling = fewRowsTiling(spec)): number =>
  tiling.blocks * segmentsOf(spec, tiling);

/** Floats from one row's results in shared memory to the next one's: threads that write together meet no bank twice. */
export const pitchOf = (spec: FewRowsSpec, tiling: FewRowsTiling): number => 16 * tilesOf(spec, tiling) + 4;

/**
 * The arrays of a block in shared memory: k-tiles, in whose place the results of all warps that share rows are put in the end, side by
 * side; and factors of the norm.
 */
export function fewRowsShared(spec: FewRowsSpec, tiling: FewRowsTiling): SharedArrays<'tiles' | 'factors'> {
  const { rows, norm, epilogueOnly } = spec;
  const beyond = (8 * Math.ceil(rows / 8) - rows) * 64; // read with the last rows
  const staged = tiling.stages * tiling.kTile * rows * 64 + beyond;
  const results = tiling.splitK * rows * pitchOf(spec, tiling) * 4;
  return { tiles: epilogueOnly ? 0 : Math.max(staged, results), factors: norm ? 4 * rows : 0 };
}

/** Bytes of k-tiles, at most. */
const MOST_STAGED = 40 * 1024;
/** Multiprocessors of an H100. */
const H100 = 132;

/** Sizes that were fastest on an H100. @param processors multiprocessors of the card; where that is 0, not known, those of an H100 */
export function fewRowsTiling(spec: FewRowsSpec, processors = multiprocessors()): FewRowsTiling {
  const { rows, out, inner } = spec;
  if (spec.epilogueOnly) return { blocks: Math.ceil(out / 32), splitK: 1, kTile: 0, stages: 0, tilesAhead: 0 };
  const all = processors || H100;
  let blocks = Math.min(all, Math.ceil(out / 4));
  while (out / blocks > 96) blocks += all;
  const tiles = 2 ** Math.ceil(Math.log2(Math.ceil(out / blocks / 16)));
  const kBlocks = inner / 32;
  const most = Math.max(1, Math.floor((tiles >= 4 ? 10240 : 20480) / (rows * 64))); // k-blocks in a k-tile
  let splitK = 1;
  while (2 * splitK * tiles <= 16 && kBlocks % (2 * splitK) === 0 && 2 * splitK <= most) splitK *= 2;
  const slots = 8; // k-blocks of weights under way, each of 8 registers
  const fits = (n: number): boolean => n <= most && n % splitK === 0 && n <= slots * splitK && kBlocks % n === 0;
  const kTile = [16, 12, 8, 6, 4, 3, 2, 1].find(fits) ?? 0;
  let tilesAhead = 1;
  while (kTile > 0 && (tilesAhead * 2 * kTile) / splitK <= slots && kBlocks % (kTile * tilesAhead * 2) === 0)
    tilesAhead *= 2;
  const stages = kTile > 0 ? Math.min(8, Math.floor(MOST_STAGED / (kTile * rows * 64))) : 0;
  return { blocks, splitK, kTile, stages, tilesAhead };
}

/**
 * Most rows that are multiplied by kernels of our own; their results are in registers. Of more rows the libraries' products are faster
 * (bench/cuda/bounds.md).
 */
export const MOST_ROWS = 32;

/** Whether the kernel can be written for these sizes. */
export function fewRowsFits(spec: FewRowsSpec, tiling = fewRowsTiling(spec)): boolean {
  const { rows, out, inner, epilogue, residual } = spec;
  const { kTile, splitK, tilesAhead, stages } = tiling;
  const context = epilogue ? epilogue.layers * (epilogue.taps - 1) * epilogue.channels : 0;
  if (Math.max(out * inner, rows * Math.max(out + (epilogue?.heads ?? 0), context)) >= 2 ** 31) return false;
  if (spec.epilogueOnly) return rows <= 1024;
  if (rows < 1 || rows > MOST_ROWS || kTile < 1 || kTile % splitK !== 0 || stages < 2) return false;
  if (!Number.isInteger(Math.log2(splitK)) || inner % (32 * kTile * tilesAhead) !== 0) return false;
  if (residual && out % 32 !== 0) return false;
  return warpsOf(spec, tiling) <= 16 && fitsShared(fewRowsShared(spec, tiling));
}
