/** What a product of one row is made of: its parts, sizes and parameters. */
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
