/** What follows an input projection in a decoding step, as all kernels of our own take it: sizes, parameters, and values. */
import * as tf from '@tensorflow/tfjs';
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

/** What they are worked out from; float32. */
export interface EpilogueInputs extends Omit<EpilogueSpec, 'bias'> {
  /** Raw inputs before, of all layers, [rows, layers, taps-1, channels], and where this layer's begin in a row */
  context: tf.Tensor;
  place: number;
  /** [channels, 1, taps] */
  weights: tf.Tensor;
  /** [channels] */
  bias?: tf.Tensor;
  /** [heads] */
  dtBias: tf.Tensor;
  /** [heads] */
  ALog?: tf.Tensor;
  /** [rows], of 0 and 1: 0 for rows that keep their context and state */
  mask?: tf.Tensor;
}

/** Sizes of the kernel over these inputs. */
export function epilogueSpecOf({ first, channels, taps, heads, limit, bias }: EpilogueInputs): EpilogueSpec {
  return { first, channels, taps, heads, bias: bias !== undefined, limit };
}

/** Names and types of a kernel's parameters, in the order of epilogueValues. */
export function epilogueParameters({ bias }: EpilogueSpec, masked = false): (readonly [name: string, dtype: Dtype])[] {
  const names = ['context', 'taps', ...(bias ? ['bias'] : []), 'dt_bias', 'A_log', ...(masked ? ['mask'] : [])];
  return [['place', 'int32'], ...names.map((name) => [name, 'float32'] as const)];
}

/** What the parameters point to. */
export function epilogueValues(inputs: EpilogueInputs): tf.Tensor[] {
  const { place, context, weights, bias, dtBias, ALog, mask } = inputs;
  return [tf.tensor1d([place], 'int32'), context, weights, bias, dtBias, ALog, mask].filter((t) => t !== undefined);
}
