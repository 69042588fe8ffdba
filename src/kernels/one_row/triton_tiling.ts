/** How a product of one row in Triton's language is shared out, and whether it can be. */
import type { OneRowSpec } from './spec.js';

/** Sizes that programs work in: a matter of speed only. */
export interface OneRowTritonTiling {
  /** Rows that a program works on at a time. */
  rows: number;
  /** Most columns in a k-tile. */
  kTile: number;
  warps: number;
  /** How often a program takes rows: it makes the vector ready once. */
  turns: number;
  /** Rows are asked for before the vector is made ready, and those of the next turn before the product of this one. */
  prefetch?: boolean;
}

const powerOfTwo = (n: number): number => n & -n;

/** Columns of a k-tile: a power of two that divides a row and fits the groups of norm and codes. 0: there is none. */
export function kTileOf(spec: OneRowSpec, most: number): number {
  const { inner, norm, format } = spec;
  const span = inner / (norm?.groups ?? 1);
  if (!Number.isInteger(span)) return 0;
  // whole groups of the norm in a k-tile, or whole k-tiles in a group
  const kTile = Math.min(powerOfTwo(powerOfTwo(span) === span ? inner : span), most);
  if (format.kind !== 'codes') return kTile >= 32 ? kTile : 0;
  const { groupSize } = format;
  return powerOfTwo(groupSize) === groupSize && groupSize >= 32 && kTile >= groupSize ? kTile : 0;
}

/** Sizes that were fastest on an H100 for the sizes of mamba2-130m, mamba2-2.7b and Codestral Mamba (bench/cuda/bounds.md). */
export function oneRowTritonTiling({ inner, format, residual, epilogue }: OneRowSpec): OneRowTritonTiling {
  if (format.kind === 'codes') return { rows: 8, kTile: 4096, warps: inner > 4096 ? 8 : 4, turns: 1 };
  const bf16 = format.kind === 'bfloat16';
  if (residual && inner < 4096) return { rows: 4, kTile: 512, warps: 8, turns: 1 };
  // few long rows, and a vector that takes long to make ready
  if (residual && inner < 8192)
    return bf16
      ? { rows: 2, kTile: 1024, warps: 16, turns: 5, prefetch: true }
      : { rows: 2, kTile: 2048, warps: 8, turns: 4 };
  if (residual)
    return bf16
      ? { rows: 4, kTile: 8192, warps: 16, turns: 8, prefetch: true }
      : { rows: 4, kTile: 2048, warps: 8, turns: 4 };
  if (!epilogue) return { rows: 8, kTile: 512, warps: 4, turns: 1 };
  if (inner < 4096) return { rows: inner <= 1024 ? 2 : 4, kTile: 512, warps: 4, turns: 1 };
  return bf16
    ? { rows: 2, kTile: 1024, warps: 4, turns: 1, prefetch: true }
    : { rows: 8, kTile: 1024, warps: 8, turns: 1 };
}

/** Most k-tiles of a row. They are written out, and of more the compiler makes code that spills, in minutes. */
const MOST_K_TILES = { float32: 8, bfloat16: 8, codes: 3 };

/** Whether the kernel can be written for these sizes. */
export function oneRowTritonFits(spec: OneRowSpec, tiling = oneRowTritonTiling(spec)): boolean {
  const kTile = kTileOf(spec, tiling.kTile);
  return kTile > 0 && spec.inner / kTile <= MOST_K_TILES[spec.format.kind] && spec.out * spec.inner < 2 ** 31;
}
