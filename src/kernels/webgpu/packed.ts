/** Packed matrices in the memory of TensorFlow.js' WebGPU backend: rows of them for its ops, and the whole for our steps. */
import * as tf from '@tensorflow/tfjs';
import type { PackedMatrix } from '../wasm/packed.js';
import type { MatrixFormat } from './formats.js';
import { dispatchOf, encode } from './gpu.js';
import { boundMatrix, type GpuMatrix } from './matrices.js';
import { rowsKernel } from './rows.js';
import { bufferOf, submitted, type WebGpuBackend, webGpuBackend } from './tfjs.js';

const ROWS = 'PackedRowsWebGpu';

/** Whether kernels take such a matrix, and this backend has them. */
export function webGpuTakes(bits: 4 | 8 | 16, groupSize: number): boolean {
  return webGpuBackend() !== null && (bits !== 4 || groupSize % 2 === 0);
}

function formatOf({ bits, groupSize }: Pick<PackedMatrix, 'bits' | 'groupSize'>): MatrixFormat {
  return bits === 4 ? { kind: 'int4', groupSize } : { kind: bits === 8 ? 'int8' : 'bfloat16' };
}

/** A matrix where its tensor, or the tensors of its codes and levels, lie. */
export function placedMatrix(backend: WebGpuBackend, matrix: tf.Tensor | PackedMatrix): GpuMatrix {
  const most = backend.device.limits.maxStorageBufferBindingSize;
  if (matrix instanceof tf.Tensor) {
    const [out, inner] = matrix.shape as [number, number];
    return boundMatrix({ kind: 'float32' }, [out, inner], most, { values: bufferOf(backend, matrix) });
  }
  const { out, inner, codes, levels, bits } = matrix;
  const buffers = { values: bufferOf(backend, codes), ...(bits < 16 && { levels: bufferOf(backend, levels) }) };
  return boundMatrix(formatOf(matrix), [out, inner], most, buffers);
}

/** Rows of W by number, [m] -> [m, in], float32. */
export function webGpuRows(matrix: PackedMatrix, rows: readonly number[]): tf.Tensor2D {
  const { codes, levels, ...about } = matrix;
  return tf.tidy(() => {
    const ids = tf.tensor1d([...rows], 'int32');
    return tf.engine().runKernel(ROWS, { codes, levels, ids }, { ...about }) as tf.Tensor2D;
  });
}

tf.registerKernel({
  kernelName: ROWS,
  backendName: 'webgpu',
  kernelFunc: ({ inputs, attrs, backend: used }) => {
    const backend = used as unknown as WebGpuBackend;
    const { codes, levels, ids } = inputs as Record<'codes' | 'levels' | 'ids', tf.Tensor>;
    const matrix = { ...(attrs as unknown as PackedMatrix), codes, levels };
    const count = ids.shape[0];
    const y = backend.makeTensorInfo([count, matrix.inner], 'float32');
    const buffers = { ids: { buffer: bufferOf(backend, ids) }, y: { buffer: bufferOf(backend, y) } };
    const { format, parts, inner } = placedMatrix(backend, matrix);
    const device = submitted(backend);
    const encoder = device.createCommandEncoder();
    encode(
      encoder,
      parts.map(({ first, out, values, levels: scales }) =>
        dispatchOf(device, rowsKernel({ inner, format, first, out, count }), {
          ...buffers,
          matrix: values,
          levels: scales,
        }),
      ),
    );
    device.queue.submit([encoder.finish()]);
    return y;
  },
});
