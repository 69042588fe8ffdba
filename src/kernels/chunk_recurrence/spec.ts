/** The linear recurrence from chunk to chunk as a kernel of our own: its sizes. */

/** Dimensions: x [b, c, h, size], decays [b, c, h]; a state of a head has `size` = p·n elements. */
export interface RecurrenceSpec {
  b: number;
  c: number;
  h: number;
  size: number;
  /** There is a state before the first step, [b, h, size]; zeros otherwise. */
  initial: boolean;
  /** From the last step to the first. */
  reverse: boolean;
  /** Type of x. Default float32. */
  given?: 'float32' | 'bfloat16';
  /** Type of the result; states are carried in float32. Default float32. */
  result?: 'float32' | 'bfloat16';
}

/** Most steps: they are written out. */
const MOST = 64;

/** Whether the kernel can be written for these sizes. */
export function recurrenceFits({ b, c, h, size }: RecurrenceSpec): boolean {
  return c <= MOST && size % 128 === 0 && b * c * h * size < 2 ** 31;
}
