/** Parts of arrays along one axis, in row-major order: what a device has of a weight or of a state. */
import { newBlock } from './blocks.js';

/** Some of an array, along an axis. */
export interface ArrayPart {
  readonly axis: number;
  /** From each first to each last but one, in order. */
  readonly ranges: readonly (readonly [from: number, to: number])[];
  /** Along the axis; more than the ranges have are zeros at the end. */
  readonly size: number;
}

/** Along an axis, from 0: as many as there are of `size` for each of `count`, zeros where the last have fewer. @param k whose */
export function evenPart(axis: number, size: number, count: number, k: number): ArrayPart {
  const each = Math.ceil(size / count);
  const [from, to] = [Math.min(k * each, size), Math.min((k + 1) * each, size)];
  return { axis, ranges: [[from, to]], size: each };
}

/** The shape of a part. */
export const partShape = (shape: readonly number[], { axis, size }: ArrayPart): number[] =>
  shape.map((n, i) => (i === axis ? size : n));

/** Sizes in bytes: of what lies behind one place along the axis, and how often that comes. */
function layout(shape: readonly number[], width: number, axis: number): { unit: number; outer: number; along: number } {
  const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);
  return { unit: product(shape.slice(axis + 1)) * width, outer: product(shape.slice(0, axis)), along: shape[axis]! };
}

/** Calls back for each run of bytes: where it begins in the whole and in the part, and how long it is. */
function eachRun(
  shape: readonly number[],
  width: number,
  { axis, ranges, size }: ArrayPart,
  run: (whole: number, part: number, length: number) => void,
): void {
  const { unit, outer, along } = layout(shape, width, axis);
  for (let i = 0; i < outer; i++) {
    let at = i * size * unit;
    for (const [from, to] of ranges) {
      run((i * along + from) * unit, at, (to - from) * unit);
      at += (to - from) * unit;
    }
  }
}

/**
 * The bytes of a part: a view where it lies together.
 * @param shape of the whole @param width bytes of an element
 */
export function takePart(whole: Uint8Array, shape: readonly number[], width: number, part: ArrayPart): Uint8Array {
  const { unit, outer } = layout(shape, width, part.axis);
  const { ranges, size } = part;
  const [[from, to]] = ranges as [readonly [number, number]];
  if (outer === 1 && ranges.length === 1 && to - from === size) return whole.subarray(from * unit, to * unit);
  const out = new Uint8Array(newBlock(outer * size * unit));
  const filled = ranges.reduce((sum, [a, b]) => sum + b - a, 0);
  if (filled < size) out.fill(0); // a block may hold anything
  eachRun(shape, width, part, (at, into, length) => out.set(whole.subarray(at, at + length), into));
  return out;
}

/** Writes a part where it belongs. @param shape of the whole */
export function putPart(values: Float32Array, into: Float32Array, shape: readonly number[], part: ArrayPart): void {
  eachRun(shape, 1, part, (at, from, length) => into.set(values.subarray(from, from + length), at));
}
