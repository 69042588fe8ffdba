/** What a row product (row_product.ts) is made of: its parts, sizes and parameters. */
import { epilogueParameters, type EpilogueSpec } from '../epilogue/spec.js';
import type { Dtype } from '../../jit/types.js';

/** How the rows of a matrix [out, in] are stored. */
export type WeightFormat =
  | { kind: 'float32' | 'bfloat16' }
  /**
   * Codes of four bits, w = (code - 8)·scale + zero by group of channels, of which `levels` is the type of scale and zero. Eight codes make a word; of a group's words, word i holds channel
   * p·groupSize/8 + i of the group in its bits 4p to 4p+3: so that channels of one position lie side by side, as the vector's do.
   */
  | {
      kind: 'codes';
      groupSize: number;
      levels: 'float32' | 'bfloat16';
      /** The vector is not rounded. */ exact?: boolean;
    };

export interface OneRowSpec {
  /** Rows and columns, [out, in]. */
  out: number;
  inner: number;
  format: WeightFormat;
  /** RMS norm before the product: groups of channels with a norm each, and the number added to the mean square. */
  norm?: { groups: number; epsilon: number };
  /** A vector is added after the product. */
  residual?: boolean;
  /** What follows the product y of an input projection z | x B C | dt: see EpilogueSpec. */
  epilogue?: EpilogueSpec;
}

/** Sizes of the pieces that programs work in: a matter of speed only. */
export interface OneRowTritonTiling {
  /** Rows that a program works on at a time. */
  rows: number;
  /** Most columns in a piece. */
  columns: number;
  warps: number;
  /** How often a program takes rows: it makes the vector ready once. */
  turns: number;
  /** Rows are asked for before the vector is made ready, and those of the next turn before the product of this one. */
  ahead?: boolean;
}

const powerOfTwo = (n: number): number => n & -n;

/** Columns of a piece: a power of two that divides a row and fits the groups of norm and codes. 0: there is none. */
export function columnsOf(spec: OneRowSpec, most: number): number {
  const { inner, norm, format } = spec;
  const span = inner / (norm?.groups ?? 1);
  if (!Number.isInteger(span)) return 0;
  // whole groups of the norm in a piece, or whole pieces in a group
  const columns = Math.min(powerOfTwo(powerOfTwo(span) === span ? inner : span), most);
  if (format.kind !== 'codes') return columns >= 32 ? columns : 0;
  const { groupSize } = format;
  return powerOfTwo(groupSize) === groupSize && groupSize >= 32 && columns >= groupSize ? columns : 0;
}

/** Pieces that were fastest on an H100 for the sizes of mamba2-130m, mamba2-2.7b and Codestral Mamba (bench/cuda/bounds.md). */
export function oneRowTritonTiling({ inner, format, residual, epilogue }: OneRowSpec): OneRowTritonTiling {
  if (format.kind === 'codes') return { rows: 8, columns: 4096, warps: inner > 4096 ? 8 : 4, turns: 1 };
  const narrow = format.kind === 'bfloat16';
  if (residual && inner < 4096) return { rows: 4, columns: 512, warps: 8, turns: 1 };
  // few long rows, and a vector that takes long to make ready
  if (residual && inner < 8192)
    return narrow
      ? { rows: 2, columns: 1024, warps: 16, turns: 5, ahead: true }
      : { rows: 2, columns: 2048, warps: 8, turns: 4 };
  if (residual)
    return narrow
      ? { rows: 4, columns: 8192, warps: 16, turns: 8, ahead: true }
      : { rows: 4, columns: 2048, warps: 8, turns: 4 };
  if (!epilogue) return { rows: 8, columns: 512, warps: 4, turns: 1 };
  if (inner < 4096) return { rows: inner <= 1024 ? 2 : 4, columns: 512, warps: 4, turns: 1 };
  return narrow
    ? { rows: 2, columns: 1024, warps: 4, turns: 1, ahead: true }
    : { rows: 8, columns: 1024, warps: 8, turns: 1 };
}

/** Most pieces of a row. They are written out, and of more the compiler makes code that spills, in minutes. */
const MOST_PIECES = { float32: 8, bfloat16: 8, codes: 3 };

/** Whether the kernel can be written for these sizes. */
export function oneRowTritonFits(spec: OneRowSpec, tiling = oneRowTritonTiling(spec)): boolean {
  const columns = columnsOf(spec, tiling.columns);
  return columns > 0 && spec.inner / columns <= MOST_PIECES[spec.format.kind] && spec.out * spec.inner < 2 ** 31;
}

/** Where in the low 20 bits the code of a position in a word is put. */
export const fieldOf = (position: number): number => (position < 5 ? position : position - 3);

/** Names and types of the inputs of a kernel, in order. */
export function parametersOf(spec: OneRowSpec): (readonly [name: string, dtype: Dtype])[] {
  const { format, norm, residual, epilogue } = spec;
  const float = (...names: string[]): (readonly [string, Dtype])[] => names.map((name) => [name, 'float32']);
  return [
    ...float('x', ...(norm ? ['gamma'] : [])),
    ...(format.kind === 'codes'
      ? ([
          ['codes', 'int32'],
          ['scale', format.levels],
          ['zero', format.levels],
        ] as const)
      : ([['weights', format.kind]] as const)),
    ...float(...(residual ? ['residual'] : [])),
    ...(epilogue ? epilogueParameters(epilogue) : []),
  ];
}
