/** Borders, between which functions are outlined (outline.ts). */
import * as tf from '@tensorflow/tfjs';
import { currentGraph, isTracing, record, symbolic, valueOf } from '../trace/backend.js';

/**
 * The same tensor, and in traced code a border: what lies between two borders is outlined into a function, and functions of the same
 * text (equal stages of a computation) are one, which TensorFlow reads and converts for XLA once. XLA puts them together again.
 */
export function outlineBorder<T extends tf.Tensor>(x: T): T {
  if (!isTracing() || currentGraph().parent) return x;
  return tf.customGrad((input: unknown) => ({
    value: symbolic(record('Identity', {}, [valueOf(input as tf.Tensor)], 'border')[0]!),
    gradFunc: (dy: tf.Tensor) => dy,
  }))(x) as T;
}
