/** The epilogue of an input projection in float64 and plain loops, one row: what its kernels are compared with. */
import type { EpilogueSpec } from './spec.js';

/** The values of one row, and what all rows share. */
export interface EpilogueReferenceInputs {
  /** z | xBC | dt as projected, [first + channels + heads] */
  y: ArrayLike<number>;
  /** Raw inputs before; those of the layer begin at `place`, [taps-1, channels]. */
  context: ArrayLike<number>;
  place: number;
  /** [channels, taps] */
  taps: ArrayLike<number>;
  /** [channels], where the spec has it */
  bias: ArrayLike<number>;
  /** [heads] */
  dtBias: ArrayLike<number>;
  ALog: ArrayLike<number>;
  /** Whether the row is switched off: it takes no step. */
  off?: boolean;
}

/** SiLU of z, xBC after the convolution with SiLU, step sizes, and decays. */
export interface EpilogueReference {
  z: number[];
  xBC: number[];
  dt: number[];
  decay: number[];
}

export const silu = (x: number): number => x / (1 + Math.exp(-x));

export function epilogueReference(spec: EpilogueSpec, given: EpilogueReferenceInputs): EpilogueReference {
  const { first, channels, taps: k, heads, bias, limit } = spec;
  const { y, context, place, taps, off = false } = given;
  const z = Array.from({ length: first }, (_, i) => silu(y[i]!));
  const xBC = Array.from({ length: channels }, (_, c) => {
    let sum = bias ? given.bias[c]! : 0;
    for (let i = 0; i < k; i++) {
      const x = i < k - 1 ? context[place + i * channels + c]! : y[first + c]!;
      sum += taps[c * k + i]! * x;
    }
    return silu(sum);
  });
  const dt = Array.from({ length: heads }, (_, h) => {
    const step = Math.log1p(Math.exp(y[first + channels + h]! + given.dtBias[h]!));
    return off ? 0 : Math.min(Math.max(step, limit[0]), limit[1]);
  });
  const decay = dt.map((step, h) => Math.exp(-Math.exp(given.ALog[h]!) * step));
  return { z, xBC, dt, decay };
}
