/** Matrices in bfloat16 as they are in a file, in the memory of WebAssembly or WebGPU: kernels widen them as they multiply. */
import * as tf from '@tensorflow/tfjs';
import { heldBytes, type PackedMatrix, wasmTakes, webGpuTakes } from '../kernels/index.js';
import { BlockedMatrix, productOfPacked, rowsOfPacked } from './blocked_matrix.js';

/** Whether the backend in use has kernels for such matrices. */
export function packsBfloat16(): boolean {
  return wasmTakes(16, 1) || webGpuTakes(16, 1);
}

/** A matrix [out, in] of bfloat16. */
export class Bfloat16Matrix extends BlockedMatrix {
  readonly shape: readonly number[];
  private readonly form: PackedMatrix;

  /** @param bytes [out, in] of bfloat16 */
  constructor(
    readonly name: string,
    [out, inner]: readonly [number, number],
    bytes: Uint8Array,
  ) {
    super();
    this.shape = [out, inner];
    const levels = tf.keep(tf.tensor1d([], 'float32'));
    this.form = { bits: 16, out, inner, groupSize: inner, codes: heldBytes(bytes), levels };
  }

  packed(): PackedMatrix {
    return this.form;
  }

  protected override rowsOf(ids: readonly number[]): tf.Tensor2D {
    return rowsOfPacked(this.form, ids);
  }

  protected override block(from: number, to: number): tf.Tensor2D {
    return this.rowsOf(Array.from({ length: to - from }, (_, i) => from + i));
  }

  protected override whole(x: tf.Tensor2D): tf.Tensor2D | null {
    return productOfPacked(this.form, x);
  }

  // no backend that packs is compiled for
  protected override refuseTracing(): void {}

  dispose(): void {
    tf.dispose([this.form.codes, this.form.levels]);
  }
}
