/** Comparing arrays of numbers, with a message that says where they part. */
import * as tf from '@tensorflow/tfjs';
import type { GoldenTensor } from './goldens.js';

/** The largest absolute difference, and where. NaN counts as infinite. */
export function largestDifference(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
): { difference: number; index: number } {
  if (got.length !== want.length) throw new Error(`got ${got.length} values, expected ${want.length}`);
  let worst = { difference: 0, index: -1 };
  for (let i = 0; i < got.length; i++) {
    const difference = got[i] === want[i] ? 0 : Math.abs(got[i]! - want[i]!);
    if (Number.isNaN(difference)) return { difference: Infinity, index: i };
    if (difference > worst.difference) worst = { difference, index: i };
  }
  return worst;
}

/** Throws unless all values agree within an absolute tolerance. */
export function expectClose(
  got: ArrayLike<number> | tf.Tensor,
  want: ArrayLike<number> | tf.Tensor,
  tolerance: number,
  what = 'values',
): void {
  const a = got instanceof tf.Tensor ? got.dataSync() : got;
  const b = want instanceof tf.Tensor ? want.dataSync() : want;
  const { difference, index } = largestDifference(a, b);
  if (!(difference <= tolerance)) {
    throw new Error(
      `${what}: entry ${index} is ${a[index]}, expected ${b[index]} (difference ${difference}, tolerance ${tolerance})`,
    );
  }
}

/** As expectClose, and the shape must agree. */
export function expectTensor(got: tf.Tensor, want: GoldenTensor, tolerance: number, what: string): void {
  if (got.shape.join() !== want.shape.join())
    throw new Error(`${what}: shape [${got.shape}], expected [${want.shape}]`);
  expectClose(got, want.data, tolerance, what);
}

/** The last k-1 columns of a Hugging Face conv state [..., d, k], in our order [..., k-1, d]. */
export function convContext(state: GoldenTensor): GoldenTensor {
  const shape = [...state.shape];
  const k = shape.pop()!;
  const d = shape.pop()!;
  const outer = shape.reduce((a, b) => a * b, 1);
  const data = new Float32Array(outer * (k - 1) * d);
  for (let o = 0; o < outer; o++)
    for (let i = 1; i < k; i++)
      for (let c = 0; c < d; c++) data[(o * (k - 1) + i - 1) * d + c] = state.data[(o * d + c) * k + i]!;
  return { shape: [...shape, k - 1, d], dtype: state.dtype, data };
}

/**
 * How far logits may move, relative to their root mean square, when `count` values on the way to them are rounded to
 * bfloat16 one after another. Rounding moves m·2^e (1 ≤ m < 2, eight bits of it kept) evenly within ±2^-8·2^e: an rms of
 * 2^-8/√3 · √E[1/m²] of the value, where E[1/m²] = 3 / (8 ln 2) for numbers of any scale. Independent roundings add as
 * squares, and four standard deviations hold the largest of some thousand logits.
 */
export function bfloat16Bound(count: number): number {
  const one = (2 ** -8 / Math.sqrt(3)) * Math.sqrt(3 / (8 * Math.LN2));
  return 4 * one * Math.sqrt(count);
}
