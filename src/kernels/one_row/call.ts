/**
 * Decoding on a GPU is a product of every matrix with one vector, with small work around it, and each kernel costs about as much as
 * it takes to start it. Here a matrix, the norm and gate before it and the residual after it are one kernel of our own: every program
 * works the norm out anew and multiplies a few rows. Matrices of bfloat16 and of codes have kernels in PTX (ptx.ts) where their sizes
 * allow it; all others are Triton kernels (triton.ts).
 */
import type * as tf from '@tensorflow/tfjs';
import { runTriton, tritonRuns } from '../../jit/custom_call/triton.js';
import { type EpilogueInputs, epilogueSpecOf, epilogueValues } from '../epilogue/inputs.js';
import { oneRowPtxKernel } from './ptx.js';
import { oneRowPtxFits } from './ptx_tiling.js';
import type { OneRowSpec, WeightFormat } from './spec.js';
import { oneRowTritonKernel } from './triton.js';
import { oneRowTritonFits } from './triton_tiling.js';

/** What a product is applied to; all float32 but `place`. */
export interface OneRowInputs {
  /** [1, in] */
  x: tf.Tensor;
  /** Weight of the norm, [in], how many groups have a norm each, and the number added to the mean square */
  norm?: { gamma: tf.Tensor; groups: number; epsilon: number };
  /** [1, out] */
  residual?: tf.Tensor;
  /** Of one row. The gate is stored as SiLU, and decays follow the step sizes (see the spec's). */
  epilogue?: Omit<EpilogueInputs, 'mask'>;
}

/**
 * residual + W·(norm(x)·gamma), and what follows an input projection, in one kernel. Traced code for a GPU alone, without a gradient.
 * @param shape of the matrix, [out, in]
 * @param matrix variables of the format: weights, or codes, scale and least
 * @returns [1, out], with epilogue [1, out + channels + 2·heads]; null where the kernel cannot be written, or runs on no GPU
 */
export function oneRowProduct(
  shape: readonly number[],
  format: WeightFormat,
  inputs: OneRowInputs,
  matrix: readonly tf.Tensor[],
): tf.Tensor2D | null {
  const { x, norm, residual, epilogue: after } = inputs;
  const [out, inner] = shape as [number, number];
  const spec: OneRowSpec = {
    out,
    inner,
    format,
    norm: norm && { groups: norm.groups, epsilon: norm.epsilon },
    residual: residual !== undefined,
    ...(after && { epilogue: epilogueSpecOf(after) }),
  };
  const ptx = oneRowPtxFits(spec);
  if (!tritonRuns() || x.size !== inner || !(ptx || oneRowTritonFits(spec))) return null;
  const given = [x, norm?.gamma, ...matrix, residual, ...(after ? epilogueValues(after) : [])];
  const extra = after ? after.channels + 2 * after.heads : 0;
  return runTriton(
    ptx ? oneRowPtxKernel(spec) : oneRowTritonKernel(spec),
    given.filter((t) => t !== undefined),
    [1, out + extra],
  ) as tf.Tensor2D;
}
