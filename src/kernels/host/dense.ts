/** Products with float32 and bfloat16 matrices on CPUs by kernels of our own, called from programs that XLA compiles. */
import * as tf from '@tensorflow/tfjs';
import { castFloat32, castTo, trueDtype } from '../../jit/index.js';
import { hasHostKernel, runHostKernel } from '../../jit/custom_call/host_call.js';
import { compilesWithXla, currentGraph } from '../../jit/trace/backend.js';
import { DENSE_PRODUCT, packNumbers } from './spec.js';

/** Instructions that the kernels are written in, the fastest first. */
export const DENSE_INSTRUCTIONS = ['avx512', 'avx2'] as const;
export type DenseInstructions = (typeof DENSE_INSTRUCTIONS)[number];

/** Most rows that a kernel takes: of more, XLA's work of widening the whole matrix first is small beside the product's. */
const MOST_ROWS = 64;
/** Of more rows, as prompts have them, kernels of TensorFlow are faster, in functions that may use them. */
const FEW_ROWS = 8;

const KERNEL = 'MatMulHost';

/** The forms of the kernels that run here; none on GPUs and on processors without AVX2. */
export function denseInstructions(): DenseInstructions[] {
  return DENSE_INSTRUCTIONS.filter((form) => hasHostKernel(`dense_product_${form}`));
}

/**
 * x [rows, in] times w [out, in] transposed, by the kernel of these instructions. Traced code.
 * @param w float32 or bfloat16 @param rounded whether x is rounded to bfloat16 where w is
 */
export function denseProductBy(
  instructions: DenseInstructions,
  x: tf.Tensor2D,
  w: tf.Tensor,
  rounded = false,
): tf.Tensor2D {
  const [out, inner] = w.shape as [number, number];
  const rows = x.shape[0];
  const numbers = packNumbers(DENSE_PRODUCT, { rows, inner, out, bf16: trueDtype(w) === 'bfloat16', rounded });
  return runHostKernel(`dense_product_${instructions}`, numbers, [x, w], [rows, out]) as tf.Tensor2D;
}

/**
 * x [rows, in] times w [out, in] transposed, all arithmetic float32, the matrix read once for all rows. Null outside code that XLA compiles, where there
 * is no kernel, and where another product is as good. Gradients for both.
 * @param rounded x is rounded to bfloat16 where w is; sums stay float32
 */
export function denseProduct(x: tf.Tensor2D, w: tf.Tensor, rounded = false): tf.Tensor2D | null {
  const [rows] = x.shape;
  if (!compilesWithXla() || rows > MOST_ROWS) return null;
  if (denseInstructions().length === 0 || (rows > FEW_ROWS && currentGraph().tensorflowProducts)) return null;
  return tf.engine().runKernel(KERNEL, { x, w }, { rounded }) as tf.Tensor2D;
}

tf.registerKernel({
  kernelName: KERNEL,
  backendName: 'tensorflow',
  kernelFunc: ({ inputs, attrs }) => {
    const { rounded } = attrs as unknown as { rounded: boolean };
    return denseProductBy(denseInstructions()[0]!, inputs['x'] as tf.Tensor2D, inputs['w'] as tf.Tensor, rounded);
  },
});

tf.registerGradient({
  kernelName: KERNEL,
  inputsToSave: ['x', 'w'],
  gradFunc: (dy, saved) => {
    const [x, w] = saved as [tf.Tensor2D, tf.Tensor];
    const grad = dy as tf.Tensor2D;
    return {
      x: () => tf.matMul(grad, castFloat32(w) as tf.Tensor2D),
      w: () => castTo(tf.matMul(grad, x, true, false), trueDtype(w)),
    };
  },
});
