/** Tensors in nested arrays and objects: taken apart into a list, and put together again. */
import * as tf from '@tensorflow/tfjs';
import { isPromise } from '../../base/async.js';
import { ArgumentError } from '../../base/errors.js';

/** Tensors in any nest of arrays and objects; other values are static and part of the cache key. */
export type Nest =
  tf.Tensor | number | string | boolean | null | undefined | { readonly [key: string]: Nest } | readonly Nest[];

/** The tensors of a nest, depth first. @throws ArgumentError for functions, class instances and typed arrays */
export function tensorsOf(nest: Nest): tf.Tensor[] {
  const found: tf.Tensor[] = [];
  mapTensors(nest, (x) => {
    found.push(x);
    return x;
  });
  return found;
}

/** The same nest with each tensor replaced. */
export function mapTensors(nest: Nest, replace: (x: tf.Tensor) => tf.Tensor): Nest {
  if (nest instanceof tf.Tensor) return replace(nest);
  if (Array.isArray(nest)) return (nest as readonly Nest[]).map((item) => mapTensors(item, replace));
  if (nest !== null && typeof nest === 'object') {
    const prototype: unknown = Object.getPrototypeOf(nest);
    if (prototype !== Object.prototype && prototype !== null) {
      isPromise(nest);
      const got = (nest as object).constructor.name;
      throw new ArgumentError(
        `jit: an argument or result holds a ${got}; expected tensors and plain values in arrays and plain objects.`,
        { got },
      );
    }
    return Object.fromEntries(Object.entries(nest).map(([key, item]) => [key, mapTensors(item, replace)]));
  }
  if (typeof nest === 'function') {
    throw new ArgumentError('jit: an argument or result is a function; expected tensors and plain values.');
  }
  return nest;
}

/** Text that is equal for nests of the same structure, shapes, dtypes and static values. */
export function nestKey(nest: Nest, dtype: (x: tf.Tensor) => string): string {
  if (nest instanceof tf.Tensor) return `${dtype(nest)}[${nest.shape.join(',')}]`;
  if (Array.isArray(nest)) return `[${(nest as readonly Nest[]).map((item) => nestKey(item, dtype)).join(';')}]`;
  if (nest !== null && typeof nest === 'object') {
    return `{${Object.entries(nest)
      .map(([key, item]) => `${JSON.stringify(key)}:${nestKey(item, dtype)}`)
      .join(';')}}`;
  }
  return typeof nest === 'number' && Object.is(nest, -0)
    ? '-0'
    : typeof nest === 'string'
      ? JSON.stringify(nest)
      : String(nest);
}
