/** Operations of the WebAssembly kernels as words in memory, which step.as reads: addresses, sizes and numbers, each at its place. */
import type { Address } from './module.js';

/** Words of an operation. */
export const WORDS = 16;

/** The word that says where what comes of an operation goes. */
export const TO = 9;

/** Kinds of operations, by number. */
const KINDS = { lookup: 0, norm: 1, product: 2, convolution: 3, recurrence: 4 } as const;

/** Where a matrix [out, inner] lies; as PackedMatrix has it, or with 32 bits float32. */
export interface PlacedMatrix {
  readonly bits: 4 | 8 | 16 | 32;
  readonly out: number;
  readonly inner: number;
  readonly groupSize: number;
  readonly codes: Address;
  readonly levels: Address;
}

/** What most operations have: where the number of rows is, what they read, and where it goes. */
export interface Passed {
  readonly rows: Address;
  readonly x: Address;
  readonly y: Address;
}

/** An operation with what it needs of scratch, in values, for one of so many threads. */
export interface Operation {
  readonly words: Int32Array;
  readonly scratch: number;
}

const bits = new DataView(new ArrayBuffer(4));

/** A float32 as a word. */
function real(value: number): number {
  bits.setFloat32(0, value);
  return bits.getInt32(0);
}

const operation = (scratch: number, words: Readonly<Record<number, number>>): Operation => ({
  words: Int32Array.from({ length: WORDS }, (_, i) => words[i] ?? 0),
  scratch,
});

/** y [rows, inner] = the rows of a matrix whose numbers are at x */
export function lookupOperation(
  { bits, inner, codes, levels, groupSize }: PlacedMatrix,
  { rows, x, y }: Passed,
): Operation {
  return operation(0, { 0: KINDS.lookup, 1: rows, 2: bits, 3: inner, 5: codes, 6: levels, 7: groupSize, 8: x, 9: y });
}

/**
 * y [rows, inner] = each row of x normed by groups of channels, times gamma [inner]
 * @param of with `last` only the last row of x, to the first of y
 */
export function normOperation(
  { rows, x, y }: Passed,
  of: { inner: number; gamma: Address; groups: number; epsilon: number; last?: boolean },
): Operation {
  const { inner, gamma, groups, epsilon, last = false } = of;
  return operation(0, {
    ...{ 0: KINDS.norm, 1: rows, 3: inner, 5: gamma, 6: groups, 7: real(epsilon), 8: x, 9: y, 12: last ? 1 : 0 },
  });
}

/** Values of a matrix that are float32 at a time, for several rows: they stay in the cache. */
const BLOCK = 2 ** 16;

/**
 * y [rows, out] = x [rows, inner]·Wᵀ + bias [out], or y + that
 * @param most rows that there are
 */
export function productOperation(
  matrix: PlacedMatrix,
  { rows, x, y }: Passed,
  { bias = 0, accumulate = false, most }: { bias?: Address; accumulate?: boolean; most: number },
): Operation {
  const { bits, inner, out, codes, levels, groupSize } = matrix;
  const block = Math.min(4 * Math.ceil(out / 4), 4 * Math.max(1, Math.floor(BLOCK / inner / 4)));
  const few = (bits === 4 ? inner + 3 * Math.ceil(inner / groupSize) : 0) + (accumulate ? out : 0);
  const many = most === 1 ? 0 : (bits === 32 ? 0 : block * inner) + (accumulate ? most * block : 0);
  return operation(Math.max(few, many), {
    ...{
      0: KINDS.product,
      1: rows,
      2: bits,
      3: inner,
      4: out,
      5: codes,
      6: levels,
      7: groupSize,
      8: x,
      9: y,
      10: bias,
    },
    ...{ 11: accumulate ? 1 : 0, 13: block },
  });
}

/** Words of an operation that say where what it carries from row to row lies: of the first row, and how many bytes on that of the next one is. */
export const CARRIED = { context: { first: 5, step: 11 }, state: { first: 7, step: 13 } } as const;

/**
 * @param given x [rows, stride] of which the first channels count, context [taps-1, channels], the same for all rows (see CARRIED),
 *   weights [taps, channels], bias [channels] or 0, y [rows, channels]
 */
export function convolutionOperation(
  { rows, x, y, ...given }: Passed & Readonly<Record<'context' | 'weights' | 'bias', Address>>,
  { channels, taps, stride }: Record<'channels' | 'taps' | 'stride', number>,
): Operation {
  const { context, weights, bias } = given;
  return operation(0, {
    ...{ 0: KINDS.convolution, 1: rows, 3: channels, 4: taps, 5: context, 6: weights, 7: bias, 8: x, 9: y, 10: stride },
  });
}

export interface RecurrenceSizes {
  readonly heads: number;
  readonly headDim: number;
  /** Heads of a group share B and C. */
  readonly groups: number;
  readonly stateSize: number;
  /** Least and largest step size. */
  readonly limit: readonly [number, number];
}

/**
 * @param given x [rows, z | xBC | dt], convolved [rows, x | B | C], rates [3, heads] of dt_bias, A_log and D, state [heads, headDim, stateSize], the
 *   same for all rows (see CARRIED), y [rows, heads, headDim]
 */
export function recurrenceOperation(
  { rows, x, y, ...given }: Passed & Readonly<Record<'convolved' | 'rates' | 'state', Address>>,
  { heads, headDim, groups, stateSize, limit }: RecurrenceSizes,
): Operation {
  const { convolved, rates, state } = given;
  return operation(0, {
    ...{ 0: KINDS.recurrence, 1: rows, 2: heads, 3: headDim, 4: groups, 5: stateSize, 6: rates, 7: state },
    ...{ 8: x, 9: y, 10: convolved, 11: real(limit[0]), 12: real(limit[1]) },
  });
}
