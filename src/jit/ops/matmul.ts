/** Products of matrices that are stored as float32 or bfloat16, each in the form that suits the device. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import { TracingError } from '../errors.js';
import { nodeBackend } from '../../runtime/binding.js';
import { cpuFeatures } from '../../runtime/cpu.js';
import { currentGraph, isTracing, record, symbolic, valueOf } from '../trace/backend.js';
import { attr } from '../trace/graphdef.js';
import { materialise } from '../fusion/materialise.js';
import { cast, castFloat32, castTo } from './element_types.js';
import { rawOp, trueDtype } from './raw_op.js';

const MATMUL_BF16 = 'MatMulBfloat16';

function product(a: tf.Tensor, b: tf.Tensor, transposeA: boolean, transposeB: boolean): tf.Tensor {
  return tf.tidy(() => {
    const [x, y] = [a, b].map((t) => (trueDtype(t) === 'bfloat16' ? t : cast(t, 'bfloat16'))) as [tf.Tensor, tf.Tensor];
    const flags = { transpose_a: attr.bool(transposeA), transpose_b: attr.bool(transposeB) };
    return cast(rawOp('MatMul', [x, y], flags)[0]!, 'float32');
  });
}

/**
 * x [m, k] times w [n, k] transposed: [m, n], float32 in and out, multiplied in bfloat16 (x is rounded, products are summed in float32 and
 * the sum is rounded once more to bfloat16). Gradients for x, and for w in w's own type.
 * @param x float32 [m, k]
 * @param w bfloat16 (or float32, then rounded) [n, k]
 */
export function matMulBf16(x: tf.Tensor, w: tf.Tensor): tf.Tensor2D {
  if (x.rank !== 2 || w.rank !== 2 || x.shape[1] !== w.shape[1]) {
    throw new ArgumentError(
      `matMulBf16: got x [${x.shape.join(',')}] and w [${w.shape.join(',')}], expected [m, k] and [n, k].`,
      {
        x: x.shape,
        w: w.shape,
      },
    );
  }
  return tf.engine().runKernel(MATMUL_BF16, { x, w }) as tf.Tensor2D;
}

/** The least float32: a bound that no number is below. */
const LEAST = -3.4028234663852886e38;

/**
 * A vector of fewer floats than these (16 KiB) is multiplied by a matrix that is computed element by element inside the product; for a
 * longer one XLA writes the whole matrix to memory first (kFusionThresholdBytes of its cpu_instruction_fusion.cc).
 */
const FUSED_BELOW = 4096;

/**
 * x·Wᵀ of one row: a long sum in parts that XLA fuses. Parts after the first are negative and subtracted: a sum XLA would compute inside a
 * product, and then not the matrix.
 * @param w computed element by element
 */
function productOfOneRow(x: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor2D {
  const [n, k] = w.shape;
  if (k < FUSED_BELOW) return tf.matMul(x, w, false, true);
  const parts = Math.ceil(k / (FUSED_BELOW - 1));
  const size = 64 * Math.ceil(k / parts / 64); // whole lines of a cache
  const product = (from: tf.Tensor2D, at: number): tf.Tensor2D => {
    const width = Math.min(size, k - at);
    return tf.matMul(tf.slice(from, [0, at], [1, width]), tf.slice(w, [0, at], [n, width]), false, true);
  };
  // the vector once, and not in every row of each part
  const [positive, negative] = [materialise(x, x), materialise(tf.neg(x) as tf.Tensor2D, x)];
  let sum = product(positive, 0);
  for (let at = size; at < k; at += size) sum = tf.sub(sum, product(negative, at));
  return sum;
}

/** Most rows that are multiplied one by one: for more, a bfloat16 matrix is converted to float32 once and for all. */
const FEW_ROWS = 8;
/** Elements of a bfloat16 matrix that stay in a cache (8 MiB) while row after row is multiplied by them. */
const CACHED = 2 ** 22;

/**
 * x·Wᵀ row by row, some rows of W at a time: XLA's product of several rows would write the converted matrix to memory first. Each row's sums
 * are those that it has alone.
 */
function productByRows(x: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor2D {
  const [n, k] = w.shape;
  const step = Math.ceil(n / Math.ceil((n * k) / CACHED));
  const rows = tf.split<tf.Tensor2D>(x, x.shape[0]);
  const columns: tf.Tensor2D[] = [];
  for (let at = 0; at < n; at += step) {
    const some = step < n ? tf.slice(w, [at, 0], [Math.min(step, n - at), k]) : w;
    columns.push(
      tf.concat(
        rows.map((row) => productOfOneRow(row, some)),
        0,
      ),
    );
  }
  return columns.length === 1 ? columns[0]! : tf.concat(columns, 1);
}

/** Whether this processor multiplies bfloat16 by instructions of its own, which oneDNN uses and XLA does not. */
const multipliesBfloat16 = ((): (() => boolean) => {
  let known: boolean | null = null;
  return () => (known ??= cpuFeatures().some((name) => name === 'avx512_bf16' || name === 'amx_bf16'));
})();

/** x·W, or x·Wᵀ, as a kernel of TensorFlow between functions that XLA compiles. */
function productByKernel(x: tf.Tensor2D, w: tf.Tensor, transposed: boolean): tf.Tensor2D {
  const flags = { transpose_a: attr.bool(false), transpose_b: attr.bool(transposed) };
  const bf16 = trueDtype(w) === 'bfloat16';
  return tf.customGrad((input: unknown) => {
    const rounded = bf16 ? cast(input as tf.Tensor, 'bfloat16') : (input as tf.Tensor);
    const out = symbolic(record('MatMul', flags, [valueOf(rounded), valueOf(w)], 'tensorflow')[0]!);
    const gradFunc = (): never => {
      throw new TracingError(
        'Products that are kernels of TensorFlow have no gradient: define the function without `tensorflowProducts`.',
      );
    };
    return { value: bf16 ? cast(out, 'float32') : out, gradFunc };
  })(x) as tf.Tensor2D;
}

/**
 * x [m, k] times w [n, k] transposed: [m, n], float32, in the form that suits the device. A GPU multiplies a bfloat16 w
 * by matMulBf16; otherwise w is converted to float32 and all arithmetic is float32.
 *
 * Of one row, XLA compiles a bare product on the CPU to a loop in one thread, but one whose matrix is computed element by
 * element (converted from bfloat16, or bounded by the least float32, which changes nothing) to a vectorised loop over all
 * threads that reads the matrix once. A few rows of a bfloat16 matrix go one by one. In functions defined with `tensorflowProducts`, more rows
 * are multiplied by TensorFlow's kernel: float32 in float32; bfloat16, where the processor has instructions for it, as matMulBf16 does.
 * @param x float32 [m, k]
 * @param w float32 or bfloat16 [n, k]; gradients for both
 * @example matMulStored(tf.tensor2d([[1, 2]]), castTo(tf.tensor2d([[3, 4]]), 'bfloat16')); // [[11]]
 */
export function matMulStored(x: tf.Tensor2D, w: tf.Tensor): tf.Tensor2D {
  const bf16 = trueDtype(w) === 'bfloat16';
  const { isUsingGpuDevice } = nodeBackend();
  if (bf16 && isUsingGpuDevice) return matMulBf16(x, w);
  return tf.tidy(() => {
    const onCpu = isTracing() && !isUsingGpuDevice;
    if (onCpu && currentGraph().tensorflowProducts && x.shape[0] > FEW_ROWS && (!bf16 || multipliesBfloat16()))
      return productByKernel(x, w, true);
    const matrix = (bf16 ? castFloat32(w) : onCpu && x.shape[0] === 1 ? tf.maximum(w, LEAST) : w) as tf.Tensor2D;
    const few = onCpu && bf16 && x.shape[0] > 1 && x.shape[0] <= FEW_ROWS;
    if (few) return productByRows(x, matrix);
    return onCpu && x.shape[0] === 1 ? productOfOneRow(x, matrix) : tf.matMul(x, matrix, false, true);
  });
}

/**
 * x [m, k] times w [k, n]: [m, n], float32, for a matrix that the function itself computes (a dequantised one). In functions
 * defined with `tensorflowProducts` the product is TensorFlow's kernel.
 * @param w float32 [k, n]
 * @param rounds whether x and w may be rounded to bfloat16, which is done where the processor multiplies that faster
 */
export function matMulComputed(x: tf.Tensor2D, w: tf.Tensor2D, rounds: boolean): tf.Tensor2D {
  return tf.tidy(() => {
    if (!isTracing() || !currentGraph().tensorflowProducts || nodeBackend().isUsingGpuDevice) return tf.matMul(x, w);
    return productByKernel(x, rounds && multipliesBfloat16() ? castTo(w, 'bfloat16') : w, false);
  });
}

tf.registerKernel({
  kernelName: MATMUL_BF16,
  backendName: 'tensorflow',
  kernelFunc: ({ inputs }) => product(inputs['x'] as tf.Tensor, inputs['w'] as tf.Tensor, false, true),
});

tf.registerGradient({
  kernelName: MATMUL_BF16,
  inputsToSave: ['x', 'w'],
  gradFunc: (dy, saved) => {
    const [x, w] = saved as [tf.Tensor, tf.Tensor];
    const grad = dy as tf.Tensor;
    return {
      x: () => product(grad, w, false, false),
      w: () => tf.tidy(() => castTo(product(grad, x, true, false), trueDtype(w))),
    };
  },
});
