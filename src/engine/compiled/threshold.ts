/** Bounds among numbers without sorting them: the greatest integer for which something holds, found bit by bit. */
import * as tf from '@tensorflow/tfjs';
import { bitcast, bitwiseAnd, rawOp, rightShift, whileLoop } from '../../jit/index.js';

/** Where a search begins: the least integer, and the first step from there; each next step is half of it. */
export interface Range {
  readonly least: number;
  readonly step: number;
}

/** All int32. The first step, 2^31, leads from the least to 0 by wrapping round. */
export const SIGNED: Range = { least: -(2 ** 31), step: -(2 ** 31) };
/** Those from 0. */
export const UNSIGNED: Range = { least: 0, step: 2 ** 30 };

/** Integers in the order of float32 numbers, equal where those are; 0 and -0 are equal. Numbers from 0 have integers from 0. */
export function orderKeys(x: tf.Tensor): tf.Tensor {
  const bits = bitcast(tf.where(tf.equal(x, 0), tf.zerosLike(x), x), 'int32');
  // all but the sign's where the number is negative
  const below = bitwiseAnd(rightShift(bits, tf.scalar(31, 'int32')), tf.scalar(2 ** 31 - 1, 'int32'));
  return rawOp('BitwiseXor', [bits, below])[0]!;
}

/**
 * For each row the greatest integer of a range for which something holds: it must hold for the least, and for all up to the one
 * that is sought. Traced code only.
 * @param holds integers [rows, 1] to bool [rows, 1] @param on false for no search; the least is then given
 * @returns int32 [rows, 1]
 */
export function greatest(
  range: Range,
  rows: number,
  holds: (at: tf.Tensor) => tf.Tensor,
  on: tf.Tensor = tf.scalar(true, 'bool'),
): tf.Tensor {
  const zero = tf.scalar(0, 'int32');
  const [found] = whileLoop(
    ([, step]) => tf.logicalAnd(on, tf.notEqual(step!, zero)),
    ([at, step]) => {
      const next = tf.add(at!, step!);
      return [tf.where(holds(next), next, at!), tf.abs(rightShift(step!, tf.scalar(1, 'int32')))];
    },
    [tf.fill([rows, 1], range.least, 'int32'), tf.scalar(range.step, 'int32')],
  );
  return found!;
}
