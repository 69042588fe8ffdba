/**
 * A quantised matrix as the layers see it in eager runs, on any backend: dequantised at each use, a block of rows at a time; on WebAssembly and
 * WebGPU by kernels of our own, out of codes that stay packed.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { TracingError } from '../jit/errors.js';
import { isTracing } from '../jit/index.js';
import type { StoredMatrix } from '../layers/weights.js';
import { dequantizeRows, storedBytes, type QuantizedMatrix } from './quantize.js';
import { type PackedMatrix, packedProduct, packedRows, webGpuRows } from '../kernels/index.js';
import type { ArrayPart } from '../base/array_parts.js';
import { partOfMatrix } from './parts.js';
import { quantizedStorage } from './storage.js';
import { releaseBackendForm, backendForm } from './backend_form.js';
import type { WeightStorage } from '../layers/storage.js';

const onWasm = (): boolean => tf.getBackend() === 'wasm';

const rowsOf = (form: PackedMatrix, rows: readonly number[]): tf.Tensor2D =>
  onWasm() ? packedRows(form, rows) : webGpuRows(form, rows);

/** Weights that are dequantised at a time: bounds what a product holds beside the codes. */
const BLOCK_WEIGHTS = 2 ** 22;

/**
 * A quantised linear map [out, in]. Each use dequantises blocks of rows of at most 16 MiB. It holds no tensor but on WebAssembly and WebGPU, where its
 * codes are in the backend's memory from the first use to dispose(). Differentiable in x; the codes themselves are constants.
 *
 * @example
 * const { matrix } = quantizeMatrix(values, [64, 128], { bits: 4, groupSize: 128 });
 * const y = new QuantizedLinear(matrix).apply(tf.ones([1, 128])); // [1, 64]
 */
export class QuantizedLinear implements StoredMatrix {
  readonly shape: readonly number[];
  private held: QuantizedMatrix | null = null;

  /** @param name of the weight, for messages */
  constructor(
    readonly matrix: QuantizedMatrix,
    readonly name = 'quantised weight',
    /** Whether compiled programs may round activations to int8 as well (see Int4WeightOnlyConfig). */
    readonly activation_quantization = true,
  ) {
    this.shape = matrix.shape;
  }

  /** Bytes of codes, scales and zeros as stored. */
  get bytes(): number {
    return storedBytes(this.matrix);
  }

  /** The matrix with its codes in memory, where they stay once an eager run wanted them. */
  private get inMemory(): QuantizedMatrix {
    this.held ??= { ...this.matrix };
    return this.held;
  }

  /** Gives back what it holds in the backend's memory. What is asked of it later is refused, or made anew of the file. */
  dispose(): void {
    releaseBackendForm(this.matrix);
  }

  part(part: ArrayPart): QuantizedLinear {
    return new QuantizedLinear(partOfMatrix(this.matrix, part, this.name), this.name, this.activation_quantization);
  }

  /** As kernels of the backend in use read it, which hold it from then on; null where there are none. */
  packed(): PackedMatrix | null {
    return backendForm(this.matrix);
  }

  /** How a compiled program keeps this matrix: packed, in the layout that is fast on the device in use. */
  storage(): WeightStorage {
    return quantizedStorage(this.matrix, { activation_quantization: this.activation_quantization });
  }

  apply(x: tf.Tensor2D): tf.Tensor2D {
    const [, inner] = this.matrix.shape;
    if (x.rank !== 2 || x.shape[1] !== inner)
      throw new ArgumentError(`${this.name}: input has shape [${x.shape}], expected [m, ${inner}]`, { shape: x.shape });
    this.refuseTracing();
    return tf.customGrad((input: unknown) => ({
      value: this.times(input as tf.Tensor2D),
      gradFunc: (dy: tf.Tensor) => this.transposedTimes(dy as tf.Tensor2D),
    }))(x) as tf.Tensor2D;
  }

  rows(ids: tf.Tensor1D): tf.Tensor2D {
    this.refuseTracing();
    const [out, inner] = this.matrix.shape;
    const wanted = [...ids.dataSync()];
    const missing = wanted.find((id) => id < 0 || id >= out);
    if (missing !== undefined)
      throw new ArgumentError(`${this.name}: row ${missing} is not among ${out}`, { id: missing, rows: out });
    const form = backendForm(this.matrix);
    if (form) return rowsOf(form, wanted);
    const values = new Float32Array(wanted.length * inner);
    wanted.forEach((id, i) => dequantizeRows(this.inMemory, id, id + 1, values.subarray(i * inner, (i + 1) * inner)));
    return tf.tensor2d(values, [wanted.length, inner]);
  }

  /** The weights it stands for, [out, in], as a new float32 tensor. */
  dequantize(): tf.Tensor2D {
    return this.block(0, this.matrix.shape[0]);
  }

  private refuseTracing(): void {
    if (isTracing())
      throw new TracingError(
        `${this.name} is quantised and was used as an eager weight inside compiled code, which would copy it there in float. Declare its storage() as program variables instead.`,
        { tensor: this.name },
      );
  }

  /** W[from..to, :] */
  private block(from: number, to: number): tf.Tensor2D {
    const form = backendForm(this.matrix);
    if (form)
      return rowsOf(
        form,
        Array.from({ length: to - from }, (_, i) => from + i),
      );
    return tf.tensor2d(dequantizeRows(this.inMemory, from, to), [to - from, this.matrix.shape[1]]);
  }

  /** Calls `use` with W[from..to, :] as a tensor that lives until it returns. */
  private rowBlocks<T>(use: (rows: tf.Tensor2D, from: number, to: number) => T): T[] {
    const [out, inner] = this.matrix.shape;
    const step = Math.max(1, Math.floor(BLOCK_WEIGHTS / inner));
    const made: T[] = [];
    for (let from = 0; from < out; from += step) {
      const to = Math.min(out, from + step);
      const rows = this.block(from, to);
      made.push(use(rows, from, to));
      rows.dispose();
    }
    return made;
  }

  /** x [m, in] -> x·Wᵀ [m, out] */
  private times(x: tf.Tensor2D): tf.Tensor2D {
    const form = backendForm(this.matrix);
    if (form && onWasm()) return packedProduct(form, x);
    return tf.tidy(() => {
      const blocks = this.rowBlocks((rows) => tf.matMul(x, rows, false, true));
      return blocks.length === 1 ? blocks[0] : tf.concat(blocks, 1);
    }) as tf.Tensor2D;
  }

  /** dy [m, out] -> dy·W [m, in] */
  private transposedTimes(dy: tf.Tensor2D): tf.Tensor2D {
    return tf.tidy(() => {
      const blocks = this.rowBlocks((rows, from, to) =>
        tf.matMul(tf.slice(dy, [0, from], [dy.shape[0], to - from]), rows),
      );
      return blocks.length === 1 ? blocks[0] : tf.addN(blocks);
    }) as tf.Tensor2D;
  }
}
