/** int4 products on CPUs by kernels of our own, called from programs that XLA compiles. Traced code for a CPU alone. */
import type * as tf from '@tensorflow/tfjs';
import { hasHostKernel, runHostKernel } from '../../jit/custom_call/host_call.js';
import { INT4_PRODUCT, operandsOf, packNumbers } from './spec.js';

/** Instructions that the kernels are written in. */
export type Instructions = 'vnni' | 'avx2';

/** The fastest first. */
const ALL: readonly Instructions[] = ['vnni', 'avx2'];

/** The forms of the kernels that run here, the fastest first; none on GPUs and on processors without AVX2. */
export function int4Instructions(): Instructions[] {
  return ALL.filter((form) => hasHostKernel(`int4_product_${form}`));
}

/** A matrix [out, in] in tiles, over traced variables. */
export interface TiledMatrix {
  out: number;
  inner: number;
  groupSize: number;
  /** Scales and zeros are bfloat16, else float32. */
  bf16Levels: boolean;
  /** See INT4_PRODUCT.operands. */
  codes: tf.Tensor;
  scale: tf.Tensor;
  zero: tf.Tensor;
}

/** x [m, in] -> x·Wᵀ [m, out], with x rounded to int8 in the matrix' groups */
export function int4Product(instructions: Instructions, matrix: TiledMatrix, x: tf.Tensor2D): tf.Tensor2D {
  const { out, inner, groupSize: group, bf16Levels, codes, scale, zero } = matrix;
  const rows = x.shape[0];
  const numbers = { rows, inner, group, out, bf16Levels };
  const operands = operandsOf<typeof INT4_PRODUCT, tf.Tensor>(INT4_PRODUCT, numbers, { x, codes, scale, zero });
  const name = `int4_product_${instructions}`;
  return runHostKernel(name, packNumbers(INT4_PRODUCT, numbers), operands, [rows, out]) as tf.Tensor2D;
}
