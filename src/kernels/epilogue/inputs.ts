/** What the epilogue is worked out from, in traced code. */
import * as tf from '@tensorflow/tfjs';
import type { EpilogueSpec } from './spec.js';

/** The tensors; float32. */
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

/** What the parameters point to. */
export function epilogueValues(inputs: EpilogueInputs): tf.Tensor[] {
  const { place, context, weights, bias, dtBias, ALog, mask } = inputs;
  return [tf.tensor1d([place], 'int32'), context, weights, bias, dtBias, ALog, mask].filter((t) => t !== undefined);
}
