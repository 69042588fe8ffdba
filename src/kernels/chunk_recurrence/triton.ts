/**
 * A linear recurrence over an axis, in one pass over memory: a Triton kernel of our own on GPUs, where a product with a matrix of
 * decays would be transposed before and after.
 */
import { ArgumentError } from '../../base/errors.js';
import { type TritonKernel, TritonWriter, type TtirValue } from '../../jit/custom_call/triton.js';
import { recurrenceFits, type RecurrenceSpec } from './spec.js';

/** Elements of a state that a program carries. */
const BLOCK = 512;
/** Steps whose inputs are asked for together. */
const AHEAD = 16;

/** The kernel, over x, decays, the state before if there is one, and the result. */
export function recurrenceKernel(spec: RecurrenceSpec): TritonKernel {
  if (!recurrenceFits(spec)) throw new ArgumentError('recurrenceKernel: no kernel for these sizes', { spec });
  const { b, c, h, size, initial, reverse, given: from = 'float32', result = 'float32' } = spec;
  const block = Math.min(size & -size, BLOCK);
  const k = new TritonWriter('recurrence', [from, 'float32', ...(initial ? ['float32' as const] : []), result]);
  const [x, decay, before] = k.parameters as [TtirValue, TtirValue, TtirValue];
  const y = k.parameters[k.parameters.length - 1]!;
  const times = (a: TtirValue, by: number): TtirValue => k.binary('arith.muli', a, by);
  const plus = (a: TtirValue, to: TtirValue | number): TtirValue => (to === 0 ? a : k.binary('arith.addi', a, to));
  const program = k.program();
  const row = k.binary('arith.divsi', program, size / block); // of [b, h]
  const column = k.binary('arith.subi', program, times(row, size / block)); // block of size
  const batch = k.binary('arith.divsi', row, h);
  const head = k.binary('arith.subi', row, times(batch, h));
  const line = plus(k.range(block), times(column, block));
  const first = plus(line, plus(times(batch, c * h * size), times(head, size))); // of step 0
  const firstDecay = plus(times(batch, c * h), head);
  const place = (step: number): number => (reverse ? c - 1 - step : step);
  const widened = (v: TtirValue): TtirValue => (v.element === 'bf16' ? k.convert('arith.extf', v, 'f32') : v);
  const keep = (at: TtirValue): void =>
    k.store(y, at, result === 'bfloat16' ? k.convert('arith.truncf', state, 'bf16') : state);
  let state = initial ? k.load(before, plus(line, times(row, size))) : k.broadcast(k.constant(0, 'f32'), [block]);
  keep(plus(first, place(0) * h * size));
  for (let done = 0; done < c - 1; done += AHEAD) {
    const steps = Array.from({ length: Math.min(AHEAD, c - 1 - done) }, (_, i) => place(done + i));
    const given = steps.map((step) => ({
      added: widened(k.load(x, plus(first, step * h * size))),
      kept: k.load(decay, plus(firstDecay, step * h)),
    }));
    given.forEach(({ added, kept }, i) => {
      state = k.binary('arith.addf', k.binary('arith.mulf', state, kept), added);
      keep(plus(first, place(done + i + 1) * h * size));
    });
  }
  return k.kernel({ grid: (b * h * size) / block, warps: 4 });
}
