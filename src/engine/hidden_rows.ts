/** Hidden states as engines hand them out: row by row, without padding. */

/**
 * @param hidden [b, t, d], flat
 * @param counts how many of its first t positions are a row's tokens
 * @param take called for each row that has some, with a copy [count, d]
 */
export function handOutRows(
  hidden: Float32Array,
  counts: readonly number[],
  t: number,
  take: (row: number, hidden: Float32Array, count: number) => void,
): void {
  const width = hidden.length / (counts.length * t);
  counts.forEach((count, row) => {
    const at = row * t * width;
    if (count > 0) take(row, hidden.slice(at, at + count * width), count);
  });
}
