/** What a matrix instruction of PTX means, in plain loops. */
import { floatOf } from './bits.js';

/**
 * c + a·b of mma.m16n8k16 with a and b in bfloat16: each operand by register and lane, as the instruction spreads tiles over a warp.
 * @param a [16, 16] in four registers of two values @param b [16, 8] in two @param c [16, 8] in four
 */
export function multiplyTiles(a: number[][], b: number[][], c: number[][]): number[][] {
  const value = (word: number, high: number): number => floatOf(high ? word & 0xffff0000 : word << 16);
  const A = (row: number, k: number): number =>
    value(a[2 * (k >> 3) + (row >> 3)]![4 * (row & 7) + ((k & 7) >> 1)]!, k & 1);
  const B = (k: number, column: number): number => value(b[k >> 3]![4 * column + ((k & 7) >> 1)]!, k & 1);
  return c.map((own, i) =>
    own.map((sum, lane) => {
      const [row, column] = [(lane >> 2) + 8 * (i >> 1), 2 * (lane & 3) + (i & 1)];
      let total = sum;
      for (let k = 0; k < 16; k++) total += A(row, k) * B(k, column);
      return Math.fround(total);
    }),
  );
}
