/**
 * Arithmetic on one row of scores: sums in float64, removed entries are -Infinity. A token with score -Infinity has
 * probability 0.
 */
import { GenerationError } from '../base/errors.js';

/**
 * Indices of the entries that are left (not -Infinity), best first or worst first; ties by index in ascending order. NaN
 * ranks above all, so that whatever keeps the best keeps it to be found.
 */
export function order(scores: Float32Array, direction: 'ascending' | 'descending'): Uint32Array {
  // One number holds the rank of a float32 (its bits, made monotonic) and its index, so that the engine's own sort of
  // numbers does the work: some ten times as fast as a comparator on a vocabulary of 50,000.
  const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
  const keys = new Float64Array(scores.length);
  let count = 0;
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] === -Infinity) continue;
    const b = scores[i] === 0 ? 0 : Number.isNaN(scores[i]) ? QUIET_NAN : bits[i]!; // -0 ranks with 0, -NaN with NaN
    let rank = b >= 0x80000000 ? 0xffffffff - b : b + 0x80000000;
    if (direction === 'descending') rank = 0xffffffff - rank;
    keys[count++] = rank * INDEX_RANGE + i;
  }
  const sorted = keys.subarray(0, count).sort();
  return Uint32Array.from(sorted, (key) => key % INDEX_RANGE);
}
const INDEX_RANGE = 2 ** 21;
/** The bits of NaN without a sign. */
const QUIET_NAN = 0x7fc00000;

/** Whether a logit, as the model gives it, is NaN or Infinity. -Infinity is an id that is never chosen. */
export function hasInvalid(logits: Float32Array): boolean {
  for (let i = 0; i < logits.length; i++) if (!(logits[i]! < Infinity)) return true;
  return false;
}

/** Whether a score is NaN. */
export function hasNaN(scores: Float32Array): boolean {
  for (let i = 0; i < scores.length; i++) if (Number.isNaN(scores[i])) return true;
  return false;
}

/**
 * The error for a row that can choose no id.
 * @param nan whether a score is NaN, or a logit of the model's infinite; else none is left @param length how many ids the row has
 */
export function noChoice(nan: boolean, row: number, length: number): GenerationError {
  return new GenerationError(
    nan
      ? `The scores of row ${row} are NaN after ${length} ids, or infinite: the model's weights or a processor are wrong. ` +
          `remove_invalid_values: true would hide it.`
      : `No token is left to choose in row ${row} after ${length} ids: the options remove every one of them. ` +
          `Loosen suppress_tokens, bad_words_ids, prefix_allowed_tokens_fn or the processors given.`,
    { row, length },
  );
}

/** The k-th largest score (1 is the largest); -Infinity where fewer are left. */
export function kthLargest(scores: Float32Array, k: number): number {
  if (k >= scores.length) return scores.reduce((a, b) => Math.min(a, b), Infinity);
  // A heap of the k largest, the smallest of them on top.
  const heap = scores.slice(0, k).sort();
  for (let i = k; i < scores.length; i++) {
    const value = scores[i]!;
    if (!(value > heap[0]!)) continue;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= k) break;
      if (child + 1 < k && heap[child + 1]! < heap[child]!) child++;
      if (heap[child]! >= value) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = value;
  }
  return heap[0]!;
}

/** The largest score and where it is first; index -1 where nothing is left. NaN counts as removed. */
export function argmax(scores: Float32Array): { index: number; value: number } {
  let index = -1;
  let value = -Infinity;
  for (let i = 0; i < scores.length; i++) {
    if (scores[i]! > value) {
      value = scores[i]!;
      index = i;
    }
  }
  return { index, value };
}

/** log of the sum of the exponentials, without overflow. */
function logSumExp(scores: Float32Array): number {
  const { value: max } = argmax(scores);
  if (max === -Infinity) return -Infinity;
  let sum = 0;
  for (let i = 0; i < scores.length; i++) sum += Math.exp(scores[i]! - max);
  return max + Math.log(sum);
}

/** Probabilities, in float64. */
export function softmax(scores: Float32Array): Float64Array {
  const norm = logSumExp(scores);
  return Float64Array.from(scores, (s) => Math.exp(s - norm));
}

/** Turns scores into log-probabilities, in place. */
export function logSoftmax(scores: Float32Array): void {
  const norm = logSumExp(scores);
  for (let i = 0; i < scores.length; i++) scores[i]! -= norm;
}

/** Entropy in nats of a list of probabilities. */
export function entropy(probabilities: Float64Array): number {
  let sum = 0;
  for (const p of probabilities) if (p > 0) sum -= p * Math.log(p);
  return sum;
}

/**
 * Draws an index with the probabilities of the scores' softmax: the first at which the running sum of probabilities,
 * taken in the order of ids, exceeds `uniform` times the total. -1 where nothing is left, or a score is NaN.
 *
 * @param uniform a number in [0, 1)
 */
export function draw(scores: Float32Array, uniform: number): number {
  const { value: max } = argmax(scores);
  if (max === -Infinity) return -1;
  let total = 0;
  const sums = new Float64Array(scores.length);
  for (let i = 0; i < scores.length; i++) {
    total += scores[i] === max ? 1 : Math.exp(scores[i]! - max); // equal, too, where both are infinite
    sums[i] = total;
  }
  if (Number.isNaN(total)) return -1;
  const target = uniform * total;
  let low = 0;
  let high = scores.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sums[middle]! > target) high = middle;
    else low = middle + 1;
  }
  return low;
}
