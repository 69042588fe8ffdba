/** Tensors among other values. Imports no TensorFlow.js: a tensor of any copy of it is one. */
import type * as tf from '@tensorflow/tfjs';

/** Whether a value is a tensor, judged by what it has. */
export const isTensor = (value: unknown): value is tf.Tensor =>
  typeof value === 'object' && value !== null && 'dataSync' in value && 'shape' in value;
