/**
 * A quantised matrix as the layers see it in eager runs, on any backend: dequantised at each use, a block of rows at a time; on WebAssembly and
 * WebGPU by kernels of our own, out of codes that stay packed.
 */
import * as tf from '@tensorflow/tfjs';
import { TracingError } from '../jit/errors.js';
import { isTracing } from '../jit/index.js';
import { BlockedMatrix, productOfPacked, rowsOfPacked } from '../layers/blocked_matrix.js';
import { dequantizeRows, storedBytes, type QuantizedMatrix } from './quantize.js';
import type { PackedMatrix } from '../kernels/index.js';
import type { ArrayPart } from '../base/array_parts.js';
import { partOfMatrix } from './parts.js';
import { quantizedStorage } from './storage.js';
import { releaseBackendForm, backendForm } from './backend_form.js';
import type { WeightStorage } from '../layers/storage.js';

/**
 * A quantised linear map [out, in]. Each use dequantises blocks of rows of at most 16 MiB. It holds no tensor but on WebAssembly and WebGPU, where its
 * codes are in the backend's memory from the first use to dispose(). Differentiable in x; the codes themselves are constants.
 *
 * @example
 * const { matrix } = quantizeMatrix(values, [64, 128], { bits: 4, groupSize: 128 });
 * const y = new QuantizedLinear(matrix).apply(tf.ones([1, 128])); // [1, 64]
 */
export class QuantizedLinear extends BlockedMatrix {
  readonly shape: readonly number[];
  private held: QuantizedMatrix | null = null;

  /** @param name of the weight, for messages */
  constructor(
    readonly matrix: QuantizedMatrix,
    readonly name = 'quantised weight',
    /** Whether compiled programs may round activations to int8 as well (see Int4WeightOnlyConfig). */
    readonly activation_quantization = true,
  ) {
    super();
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

  protected override refuseTracing(): void {
    if (isTracing())
      throw new TracingError(
        `${this.name} is quantised and was used as an eager weight inside compiled code, which would copy it there in float. Declare its storage() as program variables instead.`,
        { tensor: this.name },
      );
  }

  protected override rowsOf(ids: readonly number[]): tf.Tensor2D {
    const form = backendForm(this.matrix);
    if (form) return rowsOfPacked(form, ids);
    const [, inner] = this.matrix.shape;
    const values = new Float32Array(ids.length * inner);
    ids.forEach((id, i) => dequantizeRows(this.inMemory, id, id + 1, values.subarray(i * inner, (i + 1) * inner)));
    return tf.tensor2d(values, [ids.length, inner]);
  }

  protected override block(from: number, to: number): tf.Tensor2D {
    if (backendForm(this.matrix)) return this.rowsOf(Array.from({ length: to - from }, (_, i) => from + i));
    return tf.tensor2d(dequantizeRows(this.inMemory, from, to), [to - from, this.matrix.shape[1]]);
  }

  protected override whole(x: tf.Tensor2D): tf.Tensor2D | null {
    const form = backendForm(this.matrix);
    return form && productOfPacked(form, x);
  }
}
