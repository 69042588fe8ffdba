/** Products with float32 matrices on WebAssembly: TensorFlow.js' own, of a transposed matrix, is a plain loop without SIMD. */
import * as tf from '@tensorflow/tfjs';
import { addressOf, kernelsOver, type WasmBackend } from './module.js';
import { productOperation } from './program.js';

const KERNEL = 'MatMulWasm';

/** The backend in use if it has our kernels. */
export function wasmBackend(): WasmBackend | null {
  if (tf.getBackend() !== 'wasm') return null;
  const backend = tf.backend() as unknown as WasmBackend;
  return kernelsOver(backend) && backend;
}

/** x [rows, in] times w [out, in] transposed, all float32; null on other backends. Gradients for both. */
export function wasmDense(x: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor2D | null {
  if (x.dtype !== 'float32' || w.dtype !== 'float32' || x.size === 0 || !wasmBackend()) return null;
  return tf.engine().runKernel(KERNEL, { x, w }) as tf.Tensor2D;
}

tf.registerKernel({
  kernelName: KERNEL,
  backendName: 'wasm',
  kernelFunc: ({ inputs, backend: used }) => {
    const backend = used as WasmBackend;
    const { x, w } = inputs as { x: tf.TensorInfo; w: tf.TensorInfo };
    const [rows, inner] = x.shape as [number, number];
    const out = w.shape[0]!;
    const y = backend.makeOutput([rows, out], 'float32');
    const [from, matrix, to] = [x, w, y].map(({ dataId }) => addressOf(backend, dataId)) as [number, number, number];
    const placed = { bits: 32, out, inner, groupSize: inner, codes: matrix, levels: 0 } as const;
    const kernels = kernelsOver(backend)!;
    kernels.once(productOperation(placed, { rows: kernels.rows, x: from, y: to }, { most: rows }), rows);
    return y;
  },
});

tf.registerGradient({
  kernelName: KERNEL,
  inputsToSave: ['x', 'w'],
  gradFunc: (dy, saved) => {
    const [x, w] = saved as [tf.Tensor2D, tf.Tensor2D];
    const grad = dy as tf.Tensor2D;
    return { x: () => tf.matMul(grad, w), w: () => tf.matMul(grad, x, true, false) };
  },
});
