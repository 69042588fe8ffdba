/**
 * Products with packed matrices on WebAssembly, out of TensorFlow.js' memory: what a matrix takes there is its codes and levels, or its
 * bfloat16 values, and nothing of it is ever float32 but a block of rows.
 */
import * as tf from '@tensorflow/tfjs';
import { wasmBackend } from './dense.js';
import { addressOf, kernelsOver, type WasmBackend, type WasmKernels } from './module.js';
import { type PlacedMatrix, productOperation } from './program.js';

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

const [PRODUCT, ROWS] = ['PackedMatMulWasm', 'PackedRowsWasm'];

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

/** Writes a row of W, [in], to an address. */
function unpack({ exports }: WasmKernels, matrix: PlacedMatrix, row: number, to: number): void {
  const { bits, inner, groupSize, codes, levels } = matrix;
  const from = codes + (row * inner * bits) / 8;
  if (bits === 4) exports.int4Rows(from, levels + (row * inner * 8) / groupSize, to, inner, groupSize, 1);
  else if (bits === 8) exports.int8Rows(from, levels + 4 * row, to, inner, 1);
  else exports.bf16Values(from, to, inner);
}

/** Where the matrix of a kernel lies. */
function placed(backend: WasmBackend, inputs: tf.NamedTensorInfoMap, attrs: object): PlacedMatrix {
  return placedPacked(backend, { ...(attrs as PackedMatrix), ...(inputs as Pick<PackedMatrix, 'codes' | 'levels'>) });
}

/** Where a packed matrix lies. */
export function placedPacked(backend: WasmBackend, { codes, levels, ...about }: PackedMatrix): PlacedMatrix {
  return { ...about, codes: addressOf(backend, codes.dataId), levels: addressOf(backend, levels.dataId) };
}

tf.registerKernel({
  kernelName: PRODUCT,
  backendName: 'wasm',
  kernelFunc: ({ inputs, attrs, backend: used }) => {
    const backend = used as WasmBackend;
    const { out } = attrs as unknown as PackedMatrix;
    const x = inputs['x']!;
    const [rows] = x.shape as [number];
    const y = backend.makeOutput([rows, out], 'float32');
    const [from, to] = [x, y].map(({ dataId }) => addressOf(backend, dataId)) as [number, number];
    const kernels = kernelsOver(backend)!;
    const passed = { rows: kernels.rows, x: from, y: to };
    kernels.once(productOperation(placed(backend, inputs, attrs!), passed, { most: rows }), rows);
    return y;
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
    rows.forEach((row, i) => unpack(kernelsOver(backend)!, matrix, row, to + 4 * i * matrix.inner));
    return result;
  },
});
