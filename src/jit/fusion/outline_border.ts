/** Borders, between which functions are outlined (outline.ts). */
import * as tf from '@tensorflow/tfjs';
import { currentGraph, isTracing, record, symbolic, valueOf } from '../trace/backend.js';

/**
 * The same tensor, and in traced code a border: what lies between two borders is outlined into a function, and functions of the same
 * text (equal stages of a computation) are one, which TensorFlow reads and converts for XLA once. XLA puts them together again.
 * @param ofGradient whether its gradient is a border too: stages of the backward pass then are functions as well
 */
export function outlineBorder<T extends tf.Tensor>(x: T, ofGradient = false): T {
  if (!isTracing() || currentGraph().parent) return x;
  return tf.customGrad((input: unknown) => ({
    value: border(input as tf.Tensor),
    gradFunc: (dy: tf.Tensor) => (ofGradient ? border(dy) : dy),
  }))(x) as T;
}

const border = (x: tf.Tensor): tf.Tensor => symbolic(record('Identity', {}, [valueOf(x)], 'border')[0]!);
