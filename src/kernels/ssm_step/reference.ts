/** The recurrence of a decoding step in float64 and plain loops: what its kernel is compared with. */
import { silu } from '../epilogue/reference.js';
import type { SsmStepSpec } from './spec.js';

export interface SsmStepReferenceInputs {
  /** [rows, heads, p, n] */
  state: ArrayLike<number>;
  /** [rows, stride] each, see SsmStepSpec */
  step: ArrayLike<number>;
  gate: ArrayLike<number>;
  /** [heads] */
  D: ArrayLike<number>;
}

/** @returns the state after, [rows, heads, p, n], and v = (y + D·x)·silu(z), [rows, heads·p], without the weight of a norm */
export function ssmStepReference(
  spec: SsmStepSpec,
  { state, step, gate, D }: SsmStepReferenceInputs,
): { next: number[]; v: number[] } {
  const { rows, heads, headDim: p, groups, stateSize: n } = spec;
  const inner = heads * p;
  const next = Array.from(state);
  const v: number[] = [];
  for (let row = 0; row < rows; row++)
    for (let c = 0; c < inner; c++) {
      const h = Math.floor(c / p);
      const g = Math.floor((h * groups) / heads);
      const at = (i: number): number => step[row * spec.step.stride + spec.step.offset + i]!;
      const [dt, decay] = [at(inner + 2 * groups * n + h), at(inner + 2 * groups * n + heads + h)];
      let y = D[h]! * at(c);
      for (let i = 0; i < n; i++) {
        const place = (row * inner + c) * n + i;
        next[place] = decay * next[place]! + at(c) * dt * at(inner + g * n + i);
        y += next[place] * at(inner + groups * n + g * n + i);
      }
      const z = gate[row * spec.gate.stride + spec.gate.offset + c]!;
      v.push(y * (spec.gate.activated ? z : silu(z)));
    }
  return { next, v };
}
