/** Codes that are in memory once: in rows as on disk, until a form that multiplies by them takes them over. */
import type { QuantizedMatrix } from './quantize.js';

/** Where the codes of a matrix are: in rows, or with somebody who can make rows of them. */
type Held = { rows: Uint8Array } | { made: () => Uint8Array };

const held = new WeakMap<QuantizedMatrix, { now: Held }>();

/**
 * The same matrix, whose codes are in memory once: in rows, until heldElsewhere() says who has them; rows are made of what is there
 * whenever somebody wants them after that.
 */
export function heldOnce({ codes, ...m }: QuantizedMatrix): QuantizedMatrix {
  const state: { now: Held } = { now: { rows: codes } };
  const matrix = {
    ...m,
    get codes(): Uint8Array {
      return 'rows' in state.now ? state.now.rows : state.now.made();
    },
  };
  held.set(matrix, state);
  return matrix;
}

/** Whether a matrix is of heldOnce(). */
export const isHeldOnce = (m: QuantizedMatrix): boolean => held.has(m);

/** Lets go of the rows of a matrix of heldOnce(), whose codes somebody else holds from now on. @param made rows of these */
export function heldElsewhere(m: QuantizedMatrix, made: () => Uint8Array): void {
  const state = held.get(m);
  if (state) state.now = { made };
}
