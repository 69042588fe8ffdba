/** A model's weights as decoding steps take them, on WebAssembly and on WebGPU. */
import type * as tf from '@tensorflow/tfjs';
import type { PackedMatrix } from './wasm/packed.js';

/** Weights of a layer, float32 but for matrices that are packed. */
interface LayerTensors {
  readonly gamma: tf.Tensor;
  readonly inProj: tf.Tensor | PackedMatrix;
  readonly inBias?: tf.Tensor;
  /** [channels, 1, taps] */
  readonly taps: tf.Tensor;
  readonly bias?: tf.Tensor;
  readonly dtBias: tf.Tensor;
  readonly aLog: tf.Tensor;
  readonly d: tf.Tensor;
  readonly normGamma: tf.Tensor;
  readonly outProj: tf.Tensor | PackedMatrix;
  readonly outBias?: tf.Tensor;
}

export interface ModelTensors {
  readonly embedding: tf.Tensor | PackedMatrix;
  readonly layers: readonly LayerTensors[];
  /** Of the last norm. */
  readonly gamma: tf.Tensor;
  readonly head: tf.Tensor | PackedMatrix;
}

/** States of a layer: conv [b, taps-1, channels] and ssm [b, heads, headDim, stateSize]. */
export type StepStates = Record<'conv' | 'ssm', tf.Tensor>;
