/**
 * Weights of a bfloat16 checkpoint for eager runs on WebAssembly and WebGPU: matrices stay as they are in the file, in the backend's memory, and
 * kernels of our own widen them as they multiply. All else is float32.
 */
import * as tf from '@tensorflow/tfjs';
import type { CheckpointSource } from '../checkpoints/source.js';
import { Bfloat16Matrix, packsBfloat16 } from '../layers/bfloat16_matrix.js';
import { isMatrix, isStored, type Weight, type Weights, type WeightSpec } from '../layers/weights.js';
import { fileTensor } from './file_tensors.js';

/** Whether a weight would stay packed on the backend in use. */
function staysPacked(source: CheckpointSource, spec: WeightSpec): boolean {
  return isMatrix(spec) && source.tensors.get(spec.name)?.dtype === 'BF16';
}

/** Weights of a checkpoint of which some stay packed. */
export class PackedWeights {
  private constructor(readonly weights: Weights) {}

  /** Null where none would: on other backends, and for checkpoints in other types. */
  static of(source: CheckpointSource, specs: readonly WeightSpec[]): PackedWeights | null {
    if (!packsBfloat16()) return null;
    if (!specs.some((spec) => staysPacked(source, spec))) return null;
    const made: Record<string, Weight> = {};
    for (const spec of specs) {
      const { name, shape } = spec;
      made[name] = staysPacked(source, spec)
        ? new Bfloat16Matrix(name, shape as [number, number], source.readBytesSync(name))
        : tf.keep(tf.tidy(() => fileTensor(source, name, shape)));
    }
    return new PackedWeights(made);
  }

  /** A weight as a new float32 tensor. */
  float32(name: string): tf.Tensor {
    const weight = this.weights[name]!;
    return isStored(weight) ? (weight as Bfloat16Matrix).dequantize() : tf.clone(weight);
  }

  dispose(): void {
    for (const weight of Object.values(this.weights)) weight.dispose?.();
  }
}
