/** The epilogue as a kernel of its own in traced code. */
import type * as tf from '@tensorflow/tfjs';
import { runTriton, tritonRuns } from '../../jit/custom_call/triton.js';
import { type EpilogueInputs, epilogueSpecOf, epilogueValues } from './inputs.js';
import { separateEpilogueFits, type SeparateEpilogueSpec } from './spec.js';
import { separateEpilogueKernel } from './triton.js';

/** What the kernel is applied to; float32. */
export interface SeparateEpilogueInputs extends EpilogueInputs {
  /** [rows, wide] */
  raw: tf.Tensor2D;
  ALog: tf.Tensor;
}

/** Runs the kernel. Traced code for a GPU alone, without a gradient. @returns its result; null where there is no kernel */
export function separateEpilogue(inputs: SeparateEpilogueInputs): tf.Tensor2D | null {
  const { raw, context, channels, heads, mask } = inputs;
  const [rows, wide] = raw.shape;
  const spec: SeparateEpilogueSpec = {
    ...epilogueSpecOf(inputs),
    ...{ rows, wide, layers: context.shape[1]!, masked: mask !== undefined },
  };
  if (!tritonRuns() || !separateEpilogueFits(spec)) return null;
  const given = [raw, ...epilogueValues(inputs)];
  return runTriton(separateEpilogueKernel(spec), given, [rows, channels + 2 * heads]) as tf.Tensor2D;
}
