/** What a product of a matrix with a few rows at a time (a skinny GEMM) on a GPU is made of: sizes and parameters. */
import { epilogueParameters, type EpilogueSpec } from '../epilogue/spec.js';
import type { Dtype } from '../../jit/types.js';

/**
 * y [rows, out] of a matrix of bfloat16, [out, inner], and rows of bfloat16, which are given as [inner/32, rows, 32]: so the rows of a
 * k-block of 32 channels lie together.
 */
export interface FewRowsSpec {
  rows: number;
  out: number;
  inner: number;
  /**
   * The product is there, [rows, out] in bfloat16, and the kernel is what follows it; rows of a next product are then [rows, out]. For so many
   * rows that a library multiplies them faster.
   */
  epilogueOnly?: boolean;
  /** Norm of the given rows, but for its weight, which they are times already: sums of their squares, [rows, partials], whose sum is a row's. */
  norm?: { partials: number; epsilon: number };
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

/** Names and types of what the kernel is over, in order: inputs, then results, of which 'moved' is the memory of the input 'context'. */
export function fewRowsParameters(spec: FewRowsSpec): (readonly [name: string, dtype: Dtype])[] {
  const { norm, epilogue, residual } = spec;
  const float = (...names: string[]): (readonly [string, Dtype])[] => names.map((name) => [name, 'float32']);
  return [
    ...(spec.epilogueOnly
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
