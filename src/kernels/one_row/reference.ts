/** A product of one row in float64 and plain loops: what its kernels are compared with. */
import { epilogueReference, type EpilogueReferenceInputs } from '../epilogue/reference.js';
import type { OneRowSpec, WeightFormat } from './spec.js';

export interface OneRowReferenceInputs {
  /** [inner] */
  x: ArrayLike<number>;
  gamma: ArrayLike<number>;
  /** Of the matrix. */
  weight: (row: number, column: number) => number;
  /** [out] */
  residual: ArrayLike<number>;
  epilogue: Omit<EpilogueReferenceInputs, 'y'>;
}

/** The vector after its norm. */
function normed({ inner, norm }: OneRowSpec, { x, gamma }: OneRowReferenceInputs): number[] {
  const v = Array.from(x);
  if (!norm) return v;
  const span = inner / norm.groups;
  for (let g = 0; g < norm.groups; g++) {
    let squares = 0;
    for (let i = g * span; i < (g + 1) * span; i++) squares += v[i]! ** 2;
    for (let i = g * span; i < (g + 1) * span; i++) v[i]! *= gamma[i]! / Math.sqrt(squares / span + norm.epsilon);
  }
  return v;
}

/** @returns y [out]; with an epilogue silu(z) | xBC | dt as projected, then xBC | dt after it | decays */
export function oneRowReference(spec: OneRowSpec, given: OneRowReferenceInputs): number[] {
  const v = normed(spec, given);
  const y = Array.from({ length: spec.out }, (_, row) =>
    v.reduce((sum, value, i) => sum + given.weight(row, i) * value, spec.residual ? given.residual[row]! : 0),
  );
  if (!spec.epilogue) return y;
  const { z, xBC, dt, decay } = epilogueReference(spec.epilogue, { ...given.epilogue, y });
  return [...z, ...y.slice(spec.epilogue.first), ...xBC, ...dt, ...decay];
}

/**
 * A weight of a matrix of four-bit codes, see WeightFormat.
 * @param codes [out, inner/8] words @param scale, zero [out, inner/groupSize]
 */
export function weightOfCodes(
  { groupSize }: Extract<WeightFormat, { kind: 'codes' }>,
  inner: number,
  codes: Int32Array,
  scale: ArrayLike<number>,
  zero: ArrayLike<number>,
): (row: number, column: number) => number {
  const [groups, words] = [inner / groupSize, groupSize / 8];
  return (row, column) => {
    const group = Math.floor(column / groupSize);
    const [position, word] = [Math.floor((column % groupSize) / words), column % words];
    const code = (codes[(row * inner) / 8 + group * words + word]! >>> (4 * position)) & 15;
    return (code - 8) * scale[row * groups + group]! + zero[row * groups + group]!;
  };
}
