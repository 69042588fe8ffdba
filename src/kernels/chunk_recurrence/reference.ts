/** The linear recurrence in float64 and plain loops: what its kernel is compared with. */
import type { RecurrenceSpec } from './spec.js';

/**
 * States before each step.
 * @param x [b, c, h, size] @param decay [b, c, h] @param initial [b, h, size] @returns [b, c, h, size]
 */
export function recurrenceReference(
  { b, c, h, size, initial: starts, reverse }: RecurrenceSpec,
  x: ArrayLike<number>,
  decay: ArrayLike<number>,
  initial: ArrayLike<number>,
): Float64Array {
  const states = new Float64Array(b * c * h * size);
  for (let batch = 0; batch < b; batch++)
    for (let i = 0; i < h * size; i++) {
      let state = starts ? initial[batch * h * size + i]! : 0;
      for (let step = 0; step < c; step++) {
        const at = batch * c + (reverse ? c - 1 - step : step);
        states[at * h * size + i] = state;
        state = decay[at * h + Math.floor(i / size)]! * state + x[at * h * size + i]!;
      }
    }
  return states;
}
