/** What follows an input projection in a decoding step, as all kernels of our own take it: sizes, parameters, and values. */
import type { Dtype } from '../../jit/types.js';

/**
 * A step of the causal convolution with SiLU over channels y[first …], and step sizes dt of what comes after them, with the decays
 * exp(-exp(A_log)·dt): all written behind y, of which what comes before the channels, the gate, is stored as SiLU. So the result is
 * silu(z) | xBC | dt, the latter two as projected, then xBC | dt as activated | decays.
 */
export interface EpilogueSpec {
  first: number;
  channels: number;
  taps: number;
  /** Step sizes, one per head. */
  heads: number;
  bias: boolean;
  /** Bounds of step sizes. */
  limit: readonly [number, number];
}

/** Names and types of a kernel's parameters, in the order of epilogueValues. */
export function epilogueParameters({ bias }: EpilogueSpec, masked = false): (readonly [name: string, dtype: Dtype])[] {
  const names = ['context', 'taps', ...(bias ? ['bias'] : []), 'dt_bias', 'A_log', ...(masked ? ['mask'] : [])];
  return [['place', 'int32'], ...names.map((name) => [name, 'float32'] as const)];
}

/** The epilogue as a kernel of its own, of a projection that something else multiplies. */
export interface SeparateEpilogueSpec extends EpilogueSpec {
  rows: number;
  /** Values in a row of the projection: channels begin at `first`, raw step sizes follow them. */
  wide: number;
  /** Layers in the context, [rows, layers, taps-1, channels]. */
  layers: number;
  /** Rows may be switched off: their step sizes are 0. */
  masked: boolean;
}

/** Whether the kernel can be written for these sizes. */
export function separateEpilogueFits({ rows, wide, layers, taps, channels }: SeparateEpilogueSpec): boolean {
  return rows * Math.max(wide, layers * (taps - 1) * channels) < 2 ** 31;
}
