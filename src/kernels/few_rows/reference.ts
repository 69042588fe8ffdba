/** A product of a few rows, and what follows it, in float64 and plain loops: what its kernels are compared with. */
import { epilogueReference } from '../epilogue/reference.js';
import type { FewRowsSpec } from './spec.js';

/** Inputs by the names of fewRowsParameters, as numbers; x is [rows, inner], not in k-blocks. */
export type FewRowsReferenceInputs = Readonly<Record<string, ArrayLike<number>>>;

/** Results by the names of fewRowsParameters; `next` is [rows, out], and `sums` is one a row. */
export interface FewRowsReference {
  y: number[];
  moved: number[];
  next: number[];
  sums: number[];
}

/** The products of a row with the factor of its norm, [out]. */
function products(
  { out, inner, norm, epilogueOnly }: FewRowsSpec,
  row: number,
  given: FewRowsReferenceInputs,
): number[] {
  let squares = 0;
  for (let i = 0; i < (norm?.partials ?? 0); i++) squares += given['squares']![row * norm!.partials + i]!;
  const factor = norm ? 1 / Math.sqrt(squares / inner + norm.epsilon) : 1;
  return Array.from({ length: out }, (_, o) => {
    if (epilogueOnly) return given['raw']![row * out + o]! * factor;
    let y = 0;
    for (let c = 0; c < inner; c++) y += given['x']![row * inner + c]! * given['weights']![o * inner + c]!;
    return y * factor;
  });
}

/** @param off rows that are switched off */
export function fewRowsReference(
  spec: FewRowsSpec,
  given: FewRowsReferenceInputs,
  off: readonly number[] = [],
): FewRowsReference {
  const { rows, out, epilogue, residual } = spec;
  const moved = Array.from(given['context'] ?? []);
  const [all, next, sums]: [number[], number[], number[]] = [[], [], []];
  for (let row = 0; row < rows; row++) {
    const y = products(spec, row, given);
    if (epilogue) {
      const { first, channels, taps, layers, masked } = epilogue;
      const place = row * layers * (taps - 1) * channels + given['place']![0]!;
      const result = epilogueReference(epilogue, {
        ...{ y, place, context: given['context']!, taps: given['taps']!, bias: given['bias']! },
        ...{ dtBias: given['dt_bias']!, ALog: given['A_log']!, off: masked && off.includes(row) },
      });
      all.push(...result.z, ...result.xBC, ...result.dt, ...result.decay);
      if (masked && off.includes(row)) continue;
      for (let c = 0; c < channels; c++)
        for (let i = 0; i < taps - 1; i++)
          moved[place + i * channels + c] =
            i < taps - 2 ? given['context']![place + (i + 1) * channels + c]! : y[first + c]!;
      continue;
    }
    const stream = residual ? y.map((x, o) => x + given['residual']![row * out + o]!) : y;
    all.push(...stream);
    if (!residual) continue;
    next.push(...stream.map((x, o) => x * given['gamma']![o]!));
    sums.push(stream.reduce((sum, x) => sum + x * x, 0));
  }
  return { y: all, moved, next, sums };
}
