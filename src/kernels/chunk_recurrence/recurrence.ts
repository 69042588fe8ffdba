/**
 * A linear recurrence over an axis, in one pass over memory: a Triton kernel of our own on GPUs, where a product with a matrix of
 * decays would be transposed before and after.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import { castFloat32, castTo } from '../../jit/ops/ops.js';
import {
  type TritonKernel,
  TritonWriter,
  type TtirValue,
  runTriton,
  tritonRuns,
} from '../../jit/custom_call/triton.js';

/** Dimensions: x [b, c, h, n], decays [b, c, h]. */
export interface RecurrenceSpec {
  b: number;
  c: number;
  h: number;
  n: number;
  /** There is a state before the first step, [b, h, n]; zeros otherwise. */
  initial: boolean;
  /** From the last step to the first. */
  reverse: boolean;
  /** Type of x. Default float32. */
  given?: 'float32' | 'bfloat16';
  /** Type of the result; states are carried in float32. Default float32. */
  result?: 'float32' | 'bfloat16';
}

/** Elements of a state that a program carries. */
const BLOCK = 512;
/** Steps whose inputs are asked for together. */
const AHEAD = 16;
/** Most steps: they are written out. */
const MOST = 64;

/** Whether the kernel can be written for these sizes. */
export function recurrenceFits({ b, c, h, n }: RecurrenceSpec): boolean {
  return c <= MOST && n % 128 === 0 && b * c * h * n < 2 ** 31;
}

/** The kernel, over x, decays, the state before if there is one, and the result. */
export function recurrenceKernel(spec: RecurrenceSpec): TritonKernel {
  if (!recurrenceFits(spec)) throw new ArgumentError('recurrenceKernel: no kernel for these sizes', { spec });
  const { b, c, h, n, initial, reverse, given: from = 'float32', result = 'float32' } = spec;
  const block = Math.min(n & -n, BLOCK);
  const k = new TritonWriter('recurrence', [from, 'float32', ...(initial ? ['float32' as const] : []), result]);
  const [x, decay, before] = k.parameters as [TtirValue, TtirValue, TtirValue];
  const y = k.parameters[k.parameters.length - 1]!;
  const times = (a: TtirValue, by: number): TtirValue => k.binary('arith.muli', a, by);
  const plus = (a: TtirValue, to: TtirValue | number): TtirValue => (to === 0 ? a : k.binary('arith.addi', a, to));
  const program = k.program();
  const row = k.binary('arith.divsi', program, n / block); // of [b, h]
  const column = k.binary('arith.subi', program, times(row, n / block)); // block of n
  const batch = k.binary('arith.divsi', row, h);
  const head = k.binary('arith.subi', row, times(batch, h));
  const line = plus(k.range(block), times(column, block));
  const first = plus(line, plus(times(batch, c * h * n), times(head, n))); // of step 0
  const firstDecay = plus(times(batch, c * h), head);
  const place = (step: number): number => (reverse ? c - 1 - step : step);
  const widened = (v: TtirValue): TtirValue => (v.element === 'bf16' ? k.convert('arith.extf', v, 'f32') : v);
  const keep = (at: TtirValue): void =>
    k.store(y, at, result === 'bfloat16' ? k.convert('arith.truncf', state, 'bf16') : state);
  let state = initial ? k.load(before, plus(line, times(row, n))) : k.broadcast(k.constant(0, 'f32'), [block]);
  keep(plus(first, place(0) * h * n));
  for (let done = 0; done < c - 1; done += AHEAD) {
    const steps = Array.from({ length: Math.min(AHEAD, c - 1 - done) }, (_, i) => place(done + i));
    const given = steps.map((step) => ({
      added: widened(k.load(x, plus(first, step * h * n))),
      kept: k.load(decay, plus(firstDecay, step * h)),
    }));
    given.forEach(({ added, kept }, i) => {
      state = k.binary('arith.addf', k.binary('arith.mulf', state, kept), added);
      keep(plus(first, place(done + i + 1) * h * n));
    });
  }
  return k.kernel({ grid: (b * h * n) / block, warps: 4 });
}

/**
 * States before each step: y₀ = initial, yᵢ = decayᵢ₋₁·yᵢ₋₁ + xᵢ₋₁. With gradients. Traced code for a GPU alone.
 * @param x [b, c, h, n] @param decay [b, c, h] @param initial [b, h, n], zeros when absent
 * @param memory type of the states in memory, and of their gradients; they are carried in float32
 * @returns [b, c, h, n]; null where the kernel cannot be written, or runs on no GPU
 */
export function linearRecurrence(
  x: tf.Tensor4D,
  decay: tf.Tensor3D,
  initial?: tf.Tensor3D,
  memory: 'float32' | 'bfloat16' = 'float32',
): tf.Tensor4D | null {
  const [b, c, h, n] = x.shape;
  const spec = { b, c, h, n, initial: initial !== undefined, reverse: false, result: memory };
  if (!tritonRuns() || !recurrenceFits(spec)) return null;
  const wide = (t: tf.Tensor): tf.Tensor => (memory === 'bfloat16' ? castFloat32(t) : t);
  return tf.customGrad((...args) => {
    const save = args.pop() as (tensors: tf.Tensor[]) => void;
    const [xs, decays, before] = args as tf.Tensor[];
    const inputs = [xs!, decays!, ...(before ? [before] : [])];
    const value = wide(runTriton(recurrenceKernel(spec), inputs, x.shape, memory));
    save([decays!, value]);
    return {
      value,
      gradFunc: (dy: tf.Tensor, [kept, states]: tf.Tensor[]) => {
        // the same recurrence from the end: what a state gives to those after it
        const back = recurrenceKernel({ ...spec, initial: false, reverse: true, given: memory });
        const given = memory === 'bfloat16' ? castTo(dy, memory) : dy;
        const dx = wide(runTriton(back, [given, kept!], x.shape, memory));
        const dDecay = tf.sum(tf.mul(dx, states!), 3);
        if (!before) return [dx, dDecay];
        const at = (t: tf.Tensor): tf.Tensor => tf.reshape(tf.slice(t, [0, 0, 0, 0], [b, 1, h, n]), [b, h, n]);
        const firstKept = tf.reshape(tf.slice(kept!, [0, 0, 0], [b, 1, h]), [b, h, 1]);
        return [dx, dDecay, tf.add(at(dy), tf.mul(firstKept, at(dx)))];
      },
    };
  })(x, decay, ...(initial ? [initial] : [])) as tf.Tensor4D;
}
