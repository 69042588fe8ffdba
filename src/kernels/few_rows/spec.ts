/** What a product of a matrix with a few rows at a time on a GPU (batch_ptx.ts) is made of: its parts, sizes and parameters. */
import { multiprocessors } from '../../runtime/index.js';
import { epilogueParameters, type EpilogueSpec } from '../epilogue/spec.js';
import { SHARED_BYTES } from '../../jit/custom_call/ptx.js';
import type { Dtype } from '../../jit/types.js';

/**
 * y [rows, out] of a matrix of bfloat16, [out, inner], and rows of bfloat16, which are given as [inner/32, rows, 32]: so the rows of a
 * piece of 32 channels lie together.
 */
export interface FewRowsSpec {
  rows: number;
  out: number;
  inner: number;
  /**
   * The product is there, [rows, out] in bfloat16, and the kernel is what follows it; rows of a next product are then [rows, out]. For so many
   * rows that a library multiplies them faster.
   */
  given?: boolean;
  /** Norm of the given rows, but for its weight, which they are times already: sums of their squares, [rows, parts], whose sum is a row's. */
  norm?: { parts: number; epsilon: number };
  /**
   * What follows an input projection: the result is silu(z) | xBC after the convolution with SiLU | dt | decays, [rows, out + heads], and
   * the convolution's context moves on where it lies, but for rows that are switched off.
   */
  epilogue?: EpilogueSpec & { layers: number; masked: boolean };
  /**
   * A stream [rows, out] is added; with the result come the rows of the next product, times the weight of their norm, [out/32, rows, 32] in
   * bfloat16, and sums of their squares, [rows, squarePartials()].
   */
  residual?: boolean;
}

/** How a product is shared out: a matter of speed only. */
export interface FewRowsTiling {
  /** Blocks, of which each has its rows of the matrix. */
  blocks: number;
  /** Warps that share 16 rows of the matrix, each of them some pieces of 32 channels. A power of two. */
  parts: number;
  /** Pieces of 32 channels, of all rows, that come into shared memory at a time. */
  chunk: number;
  /** Chunks there is room for in shared memory: all but one are under way while that one is multiplied. */
  buffers: number;
  /** Chunks whose weights a warp has under way. */
  ahead: number;
}

/** Most rows of the matrix in a block. */
export const rowsOfBlock = ({ out }: FewRowsSpec, { blocks }: FewRowsTiling): number => Math.ceil(out / blocks);
/** Of a block: 16 rows of the matrix each. */
export const tilesOf = (spec: FewRowsSpec, tiling: FewRowsTiling): number => Math.ceil(rowsOfBlock(spec, tiling) / 16);
/** A power of two, as Triton has it: some may have no tile. */
export const warpsOf = (spec: FewRowsSpec, tiling: FewRowsTiling): number =>
  spec.given ? 8 : tiling.parts * 2 ** Math.ceil(Math.log2(tilesOf(spec, tiling)));
/** Of a block, of its rows of the matrix: what a warp takes at a time in the end. */
export const segmentsOf = (spec: FewRowsSpec, tiling: FewRowsTiling): number =>
  Math.ceil(rowsOfBlock(spec, tiling) / 32);
/** Sums of squares of each row. */
export const squarePartials = (spec: FewRowsSpec, tiling = fewRowsTiling(spec)): number =>
  tiling.blocks * segmentsOf(spec, tiling);

/** Floats from one row's results in shared memory to the next one's: threads that write together meet no bank twice. */
export const pitchOf = (spec: FewRowsSpec, tiling: FewRowsTiling): number => 16 * tilesOf(spec, tiling) + 4;

/** Bytes of shared memory: chunks, in whose place the results of all parts are put in the end, side by side. */
export function sharedOf(spec: FewRowsSpec, tiling: FewRowsTiling): number {
  const { rows } = spec;
  const beyond = (8 * Math.ceil(rows / 8) - rows) * 64; // read with the last rows
  const chunks = tiling.buffers * tiling.chunk * rows * 64 + beyond;
  return Math.max(chunks, tiling.parts * rows * pitchOf(spec, tiling) * 4);
}

/** Bytes of chunks, at most. */
const MOST_CHUNKS = 40 * 1024;
/** Multiprocessors of an H100. */
const H100 = 132;

/** Pieces that were fastest on an H100. @param processors multiprocessors of the card; where that is 0, not known, those of an H100 */
export function fewRowsTiling(spec: FewRowsSpec, processors = multiprocessors()): FewRowsTiling {
  const { rows, out, inner } = spec;
  if (spec.given) return { blocks: Math.ceil(out / 32), parts: 1, chunk: 0, buffers: 0, ahead: 0 };
  const all = processors || H100;
  let blocks = Math.min(all, Math.ceil(out / 4));
  while (out / blocks > 96) blocks += all;
  const tiles = 2 ** Math.ceil(Math.log2(Math.ceil(out / blocks / 16)));
  const pieces = inner / 32;
  const most = Math.max(1, Math.floor((tiles >= 4 ? 10240 : 20480) / (rows * 64))); // pieces in a chunk
  let parts = 1;
  while (2 * parts * tiles <= 16 && pieces % (2 * parts) === 0 && 2 * parts <= most) parts *= 2;
  const slots = 8; // pieces of weights under way, each of 8 registers
  const fits = (n: number): boolean => n <= most && n % parts === 0 && n <= slots * parts && pieces % n === 0;
  const chunk = [16, 12, 8, 6, 4, 3, 2, 1].find(fits) ?? 0;
  let ahead = 1;
  while (chunk > 0 && (ahead * 2 * chunk) / parts <= slots && pieces % (chunk * ahead * 2) === 0) ahead *= 2;
  const buffers = chunk > 0 ? Math.min(8, Math.floor(MOST_CHUNKS / (chunk * rows * 64))) : 0;
  return { blocks, parts, chunk, buffers, ahead };
}

/**
 * Most rows that are multiplied by kernels of our own; their results are in registers. Of more rows the libraries' products are faster
 * (bench/cuda/bounds.md).
 */
export const MOST_ROWS = 32;

/** Whether the kernel can be written for these sizes. */
export function fewRowsFits(spec: FewRowsSpec, tiling = fewRowsTiling(spec)): boolean {
  const { rows, out, inner, epilogue, residual } = spec;
  const { chunk, parts, ahead, buffers } = tiling;
  const context = epilogue ? epilogue.layers * (epilogue.taps - 1) * epilogue.channels : 0;
  if (Math.max(out * inner, rows * Math.max(out + (epilogue?.heads ?? 0), context)) >= 2 ** 31) return false;
  if (spec.given) return rows <= 1024;
  if (rows < 1 || rows > MOST_ROWS || chunk < 1 || chunk % parts !== 0 || buffers < 2) return false;
  if (!Number.isInteger(Math.log2(parts)) || inner % (32 * chunk * ahead) !== 0) return false;
  if (residual && out % 32 !== 0) return false;
  if (warpsOf(spec, tiling) > 16 || sharedOf(spec, tiling) + 4 * rows + 64 > SHARED_BYTES) return false;
  return true;
}

/** Names and types of what the kernel is over, in order: inputs, then results, of which 'moved' is the memory of the input 'context'. */
export function fewRowsParameters(spec: FewRowsSpec): (readonly [name: string, dtype: Dtype])[] {
  const { norm, epilogue, residual } = spec;
  const float = (...names: string[]): (readonly [string, Dtype])[] => names.map((name) => [name, 'float32']);
  return [
    ...(spec.given
      ? ([['raw', 'bfloat16']] as const)
      : ([
          ['x', 'bfloat16'],
          ['weights', 'bfloat16'],
        ] as const)),
    ...float(...(norm ? ['squares'] : [])),
    ...(epilogue ? epilogueParameters(epilogue, epilogue.masked) : []),
    ...float(...(residual ? ['residual', 'gamma'] : [])),
    ...float('y', ...(epilogue ? ['moved'] : [])),
    ...(residual ? ([['next', 'bfloat16'], ...float('sums')] as const) : []),
  ];
}
