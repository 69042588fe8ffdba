/**
 * What lies between an input projection and the recurrence in a decoding step of several rows, as one Triton kernel of our own on GPUs:
 * a step of the causal convolution with SiLU, step sizes and decays. XLA makes three kernels of it.
 */
import { ArgumentError } from '../../base/errors.js';
import { type TritonKernel, TritonWriter, type TtirValue } from '../../jit/custom_call/triton.js';
import { epilogueParameters, separateEpilogueFits, type SeparateEpilogueSpec } from './spec.js';

/** Channels of a program. */
const BLOCK = 256;

/**
 * The kernel, over the projection, place, context, taps, bias if there is one, dt_bias, A_log, mask if there is one, and the result
 * x | B | C | dt | decay, [rows, channels + 2·heads], of decays exp(-exp(A_log)·dt).
 */
export function separateEpilogueKernel(spec: SeparateEpilogueSpec): TritonKernel {
  if (!separateEpilogueFits(spec))
    throw new ArgumentError('separateEpilogueKernel: no kernel for these sizes', { spec });
  const { rows, wide, layers, first, channels, taps, heads, bias, masked, limit } = spec;
  const parameters = [['raw', 'float32'], ...epilogueParameters(spec, masked), ['y', 'float32']] as const;
  const k = new TritonWriter(
    'epilogue',
    parameters.map(([, dtype]) => dtype),
  );
  const pointer = (name: string): TtirValue => k.parameters[parameters.findIndex(([own]) => own === name)]!;
  const int = (op: 'addi' | 'muli' | 'subi' | 'divsi' | 'minsi', a: TtirValue, b: TtirValue | number): TtirValue =>
    k.binary(`arith.${op}`, a, b);
  const add = (a: TtirValue, b: TtirValue | number): TtirValue => k.binary('arith.addf', a, b);
  const multiply = (a: TtirValue, b: TtirValue | number): TtirValue => k.binary('arith.mulf', a, b);
  const both = (a: TtirValue, b: TtirValue): TtirValue => k.binary('arith.andi', a, b);
  const blocks = Math.ceil((channels + heads) / BLOCK);
  const program = k.program();
  const row = int('divsi', program, blocks);
  const block = int('subi', program, int('muli', row, blocks));
  const channel = int('addi', k.range(BLOCK), int('muli', block, BLOCK)); // of the channels, then of the heads
  const from = (base: number): TtirValue => k.compare('arith.cmpi sge', channel, base);
  const below = (end: number): TtirValue => k.compare('arith.cmpi slt', channel, end);
  const isChannel = below(channels);
  const isHead = both(from(channels), below(channels + heads));

  const start = int('addi', int('muli', row, wide), first); // of the row's channels
  let sum = multiply(
    k.load(pointer('raw'), int('addi', channel, start), isChannel),
    k.load(pointer('taps'), int('addi', int('muli', channel, taps), taps - 1), isChannel),
  );
  const place = k.load(pointer('place'), k.constant(0, 'i32'));
  const before = int('addi', int('muli', row, layers * (taps - 1) * channels), place);
  for (let i = 0; i < taps - 1; i++) {
    const old = k.load(pointer('context'), int('addi', int('addi', channel, before), i * channels), isChannel);
    sum = add(sum, multiply(old, k.load(pointer('taps'), int('addi', int('muli', channel, taps), i), isChannel)));
  }
  if (bias) sum = add(sum, k.load(pointer('bias'), channel, isChannel));
  const y = k.binary('arith.divf', sum, add(k.unary('math.exp', multiply(sum, -1)), 1));

  const head = int('minsi', k.binary('arith.maxsi', int('subi', channel, channels), 0), heads - 1);
  const rawStep = k.load(pointer('raw'), int('addi', head, int('addi', start, channels)));
  let step = k.softplus(add(rawStep, k.load(pointer('dt_bias'), head)));
  if (limit[0] > 0) step = k.binary('arith.maximumf', step, limit[0]);
  if (Number.isFinite(limit[1])) step = k.binary('arith.minimumf', step, limit[1]);
  if (masked) step = multiply(step, k.load(pointer('mask'), row));
  const rate = k.unary('math.exp', k.load(pointer('A_log'), head));
  const decay = k.unary('math.exp', multiply(multiply(step, rate), -1));

  const to = int('addi', channel, int('muli', row, channels + 2 * heads));
  k.store(pointer('y'), to, k.select(isHead, step, y), below(channels + heads));
  k.store(pointer('y'), int('addi', to, heads), decay, isHead);
  return k.kernel({ grid: rows * blocks, warps: 4 });
}
