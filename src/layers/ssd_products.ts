/** The products of the SSD scan, in float32 or, for GPUs, in bfloat16. */
import * as tf from '@tensorflow/tfjs';
import { batchMatMulBf16 } from '../jit/index.js';
import type { MatMul } from './einsum.js';

export interface ScanProducts {
  /** For what is added up after it: sums stay in float32. */
  toFloat32: MatMul;
  /** For what is read once more, as an operand or by the sum of a position's terms: sums are rounded to bfloat16. */
  toBf16: MatMul;
}

function inBf16(float32Output: boolean): MatMul {
  return (a, b, transposeA, transposeB) =>
    batchMatMulBf16(a as tf.Tensor3D, b as tf.Tensor3D, { transposeA, transposeB, float32Output });
}

const PLAIN: ScanProducts = { toFloat32: tf.matMul, toBf16: tf.matMul };
const BF16: ScanProducts = { toFloat32: inBf16(true), toBf16: inBf16(false) };

/** @param bf16 see SsdInputs.bf16. The authors' kernels round the same values: operands, what a state gives, and states at chunk starts. */
export function productsOf(bf16 = false): ScanProducts {
  return bf16 ? BF16 : PLAIN;
}
