/** jit(): tf.function for tfjs. */
import type * as tf from '@tensorflow/tfjs';
import { TracingError } from '../errors/index.js';

/** Tensors in any nest of arrays and objects; other values are static and part of the cache key. */
export type Nest = tf.Tensor | number | string | boolean | null | undefined | { [key: string]: Nest } | readonly Nest[];

export interface JitFunction<A extends readonly Nest[], R extends Nest> {
  (...args: A): R;
  /** Programs compiled so far. */
  readonly cacheSize: number;
  dispose(): void;
}

/** Compiles a pure function of tensors, once per shapes, dtypes and static arguments. */
export function jit<A extends readonly Nest[], R extends Nest>(fn: (...args: A) => R): JitFunction<A, R> {
  void fn;
  throw new TracingError('not built yet');
}
