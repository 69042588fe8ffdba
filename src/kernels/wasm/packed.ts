/**
 * Products with packed matrices on WebAssembly, out of TensorFlow.js' memory: what a matrix takes there is its codes and levels, or its
 * bfloat16 values, and nothing of it is ever float32 but a block of rows.
 */
import * as tf from '@tensorflow/tfjs';
import { wasmBackend } from './dense.js';
import { addressOf, kernelsOver, type WasmBackend, type WasmExports, withScratch } from './module.js';

/** A matrix [out, in] as the kernels read it. */
export interface PackedMatrix {
  readonly bits: 4 | 8 | 16;
  readonly out: number;
  readonly inner: number;
  /** Channels that share a scale; of no meaning for 16 bits. */
  readonly groupSize: number;
  /**
   * Bytes, four to an int32, the last ones of no meaning. 4 bits: [out, in/2], the even channel in the low nibble, q of 0 to 15. 8 bits: [out, in] in
   * two's complement. 16 bits: [out, in] of bfloat16.
   */
  readonly codes: tf.Tensor;
  /** 4 bits: scale and zero, [out, groups, 2], w = (q - 8)·scale + zero. 8 bits: scales [out]. 16 bits: nothing, [0]. */
  readonly levels: tf.Tensor;
}

/** Where a matrix lies, and what it is. */
interface Placed extends Omit<PackedMatrix, 'codes' | 'levels'> {
  readonly codes: number;
  readonly levels: number;
}

const [PRODUCT, ROWS] = ['PackedMatMulWasm', 'PackedRowsWasm'];

/** Rows of x up to which a matrix is unpacked anew for each of them. */
const FEW = 4;
/** Values of a matrix that are float32 at a time, for more rows: they stay in the cache. */
const BLOCK = 2 ** 16;
/** Sums of int16 with codes stay in 32 bits for groups up to this. */
const MOST_GROUP = 4096;

/** Whether kernels take such a matrix, and this backend has them. */
export function wasmTakes(bits: 4 | 8 | 16, groupSize: number): boolean {
  return wasmBackend() !== null && (bits !== 4 || (groupSize % 32 === 0 && groupSize <= MOST_GROUP));
}

/** Bytes as a tensor in the backend's memory that outlives the tidy around. */
export function heldBytes(bytes: Uint8Array): tf.Tensor {
  const whole = bytes.byteOffset % 4 === 0 && bytes.byteLength % 4 === 0;
  const padded = whole ? bytes : new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
  if (!whole) padded.set(bytes);
  return tf.keep(tf.tensor1d(new Int32Array(padded.buffer, padded.byteOffset, padded.byteLength / 4), 'int32'));
}

/**
 * x [m, in] -> x·Wᵀ [m, out], as exact as in float32. Not differentiable by itself.
 */
export function packedProduct(matrix: PackedMatrix, x: tf.Tensor2D): tf.Tensor2D {
  const { codes, levels, ...about } = matrix;
  return tf.engine().runKernel(PRODUCT, { x, codes, levels }, { ...about }) as tf.Tensor2D;
}

/** Rows of W by number, [m] -> [m, in], float32. */
export function packedRows(matrix: PackedMatrix, rows: readonly number[]): tf.Tensor2D {
  const { codes, levels, ...about } = matrix;
  return tf.engine().runKernel(ROWS, { codes, levels }, { ...about, rows: [...rows] }) as tf.Tensor2D;
}

/** Writes rows begin to end of W, [end - begin, in], to an address. */
function unpack(kernels: WasmExports, matrix: Placed, begin: number, end: number, to: number): void {
  const { bits, inner, groupSize, codes, levels } = matrix;
  const from = codes + (begin * inner * bits) / 8;
  if (bits === 4) {
    const level = levels + (begin * inner * 8) / groupSize;
    kernels.int4Rows(from, level, to, inner, groupSize, end - begin);
  } else if (bits === 8) kernels.int8Rows(from, levels + 4 * begin, to, inner, end - begin);
  else kernels.bf16Values(from, to, (end - begin) * inner);
}

/** y [out] of one row of x. @param scratch of inner + 3·groups values */
function oneRow(kernels: WasmExports, matrix: Placed, { x, y, scratch }: Record<'x' | 'y' | 'scratch', number>): void {
  const { bits, out, inner, groupSize, codes, levels } = matrix;
  if (bits === 16) return kernels.bf16Product(x, codes, y, inner, out);
  if (bits === 8) return kernels.int8Product(x, codes, levels, y, inner, out);
  // of each channel two int16
  const steps = scratch + 4 * inner;
  kernels.wholeInput(x, scratch, steps, inner, groupSize);
  kernels.int4Product(scratch, steps, codes, levels, y, inner, groupSize, out);
}

function placed(backend: WasmBackend, inputs: tf.NamedTensorInfoMap, attrs: object): Placed {
  const [codes, levels] = [inputs['codes']!, inputs['levels']!].map(({ dataId }) => addressOf(backend, dataId));
  return { ...(attrs as PackedMatrix), codes: codes!, levels: levels! };
}

tf.registerKernel({
  kernelName: PRODUCT,
  backendName: 'wasm',
  kernelFunc: ({ inputs, attrs, backend: used }) => {
    const backend = used as WasmBackend;
    const kernels = kernelsOver(backend)!;
    const { out, inner, groupSize } = attrs as unknown as PackedMatrix;
    const given = inputs['x']!;
    const rows = given.shape[0]!;
    const result = backend.makeOutput([rows, out], 'float32');
    const few = rows <= FEW;
    const block = Math.min(out, Math.max(4, Math.floor(BLOCK / inner)));
    withScratch(backend, few ? inner + 3 * Math.ceil(inner / groupSize) : block * inner, (scratch) => {
      // memory may have moved nothing, but grown: addresses stay
      const matrix = placed(backend, inputs, attrs!);
      const [x, y] = [addressOf(backend, given.dataId), addressOf(backend, result.dataId)];
      if (few)
        for (let r = 0; r < rows; r++) oneRow(kernels, matrix, { x: x + 4 * r * inner, y: y + 4 * r * out, scratch });
      else
        for (let from = 0; from < out; from += block) {
          const to = Math.min(out, from + block);
          unpack(kernels, matrix, from, to, scratch);
          kernels.dense(x, scratch, y + 4 * from, rows, inner, to - from, out);
        }
    });
    return result;
  },
});

tf.registerKernel({
  kernelName: ROWS,
  backendName: 'wasm',
  kernelFunc: ({ inputs, attrs, backend: used }) => {
    const backend = used as WasmBackend;
    const matrix = placed(backend, inputs, attrs!);
    const { rows } = attrs as unknown as { rows: number[] };
    const result = backend.makeOutput([rows.length, matrix.inner], 'float32');
    const to = addressOf(backend, result.dataId);
    rows.forEach((row, i) => unpack(kernelsOver(backend)!, matrix, row, row + 1, to + 4 * i * matrix.inner));
    return result;
  },
});
