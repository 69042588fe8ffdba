/** The linear recurrence in float64 and plain loops: what its kernel is compared with. */
import type { RecurrenceSpec } from './spec.js';

/**
 * States before each step.
 * @param x [b, c, h, n] @param decay [b, c, h] @param initial [b, h, n] @returns [b, c, h, n]
 */
export function recurrenceReference(
  { b, c, h, n, initial: starts, reverse }: RecurrenceSpec,
  x: ArrayLike<number>,
  decay: ArrayLike<number>,
  initial: ArrayLike<number>,
): Float64Array {
  const states = new Float64Array(b * c * h * n);
  for (let batch = 0; batch < b; batch++)
    for (let i = 0; i < h * n; i++) {
      let state = starts ? initial[batch * h * n + i]! : 0;
      for (let step = 0; step < c; step++) {
        const at = batch * c + (reverse ? c - 1 - step : step);
        states[at * h * n + i] = state;
        state = decay[at * h + Math.floor(i / n)]! * state + x[at * h * n + i]!;
      }
    }
  return states;
}
