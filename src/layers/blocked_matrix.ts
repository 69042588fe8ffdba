/** Matrices that are widened to float32 at each use, a block of rows at a time. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { type PackedMatrix, packedProduct, packedRows, webGpuRows } from '../kernels/index.js';
import type { StoredMatrix } from './weights.js';

/** Weights that are float32 at a time: bounds what a product holds beside the matrix. */
const BLOCK_WEIGHTS = 2 ** 22;

const onWasm = (): boolean => tf.getBackend() === 'wasm';

/** Rows of a packed matrix by number, [m, in], by the kernels of the backend in use. */
export function rowsOfPacked(form: PackedMatrix, rows: readonly number[]): tf.Tensor2D {
  return onWasm() ? packedRows(form, rows) : webGpuRows(form, rows);
}

/** x·Wᵀ out of a packed matrix; null where only its rows can be had. */
export function productOfPacked(form: PackedMatrix, x: tf.Tensor2D): tf.Tensor2D | null {
  return onWasm() ? packedProduct(form, x) : null;
}

/** A linear map [out, in] whose rows can be had as float32. Differentiable in x; the weights themselves are constants. */
export abstract class BlockedMatrix implements StoredMatrix {
  abstract readonly shape: readonly number[];
  /** Of the weight, for messages. */
  abstract readonly name: string;

  /** W[ids, :] as a new tensor. */
  protected abstract rowsOf(ids: readonly number[]): tf.Tensor2D;
  /** W[from..to, :] as a new tensor. */
  protected abstract block(from: number, to: number): tf.Tensor2D;
  /** x·Wᵀ without blocks; null where there is no such kernel. */
  protected abstract whole(x: tf.Tensor2D): tf.Tensor2D | null;
  /** @throws TracingError within compiled code, where the matrix is no variable */
  protected abstract refuseTracing(): void;

  apply(x: tf.Tensor2D): tf.Tensor2D {
    const inner = this.shape[1]!;
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
    const out = this.shape[0]!;
    const wanted = [...ids.dataSync()];
    const missing = wanted.find((id) => id < 0 || id >= out);
    if (missing !== undefined)
      throw new ArgumentError(`${this.name}: row ${missing} is not among ${out}`, { id: missing, rows: out });
    return this.rowsOf(wanted);
  }

  /** The weights it stands for, [out, in], as a new float32 tensor. */
  dequantize(): tf.Tensor2D {
    return this.block(0, this.shape[0]!);
  }

  /** Calls `use` with W[from..to, :] as a tensor that lives until it returns. */
  private rowBlocks<T>(use: (rows: tf.Tensor2D, from: number, to: number) => T): T[] {
    const [out, inner] = this.shape as [number, number];
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
    const whole = this.whole(x);
    if (whole) return whole;
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
