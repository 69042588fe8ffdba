/**
 * What lies between an input projection and the recurrence in a decoding step of several rows, as one Triton kernel of our own on GPUs:
 * a step of the causal convolution with SiLU, step sizes and decays. XLA makes three kernels of it.
 */
import { ArgumentError } from '../../base/errors.js';
import { type TritonKernel, TritonWriter } from '../../jit/custom_call/triton.js';
import { Epilogue } from './epilogue.js';
import { epilogueParameters, separateEpilogueFits, type SeparateEpilogueSpec } from './spec.js';
import { TritonElements } from './triton_elements.js';

/** Channels of a program. */
const BLOCK = 256;

/**
 * The kernel, over the projection, place, context, taps, bias if there is one, dt_bias, A_log, mask if there is one, and the result
 * x | B | C | dt | decay, [rows, channels + 2·heads], of decays exp(-exp(A_log)·dt).
 */
export function separateEpilogueKernel(spec: SeparateEpilogueSpec): TritonKernel {
  if (!separateEpilogueFits(spec))
    throw new ArgumentError('separateEpilogueKernel: no kernel for these sizes', { spec });
  const { rows, wide, layers, first, channels, taps, heads, masked } = spec;
  const parameters = [['raw', 'float32'], ...epilogueParameters(spec, masked), ['y', 'float32']] as const;
  const k = new TritonWriter(
    'epilogue',
    parameters.map(([, dtype]) => dtype),
  );
  const e = new TritonElements(k, (name) => k.parameters[parameters.findIndex(([own]) => own === name)]!);
  const blocks = Math.ceil((channels + heads) / BLOCK);
  const program = k.program();
  const row = k.binary('arith.divsi', program, blocks);
  const block = k.binary('arith.subi', program, k.binary('arith.muli', row, blocks));
  const position = k.binary('arith.addi', k.range(BLOCK), k.binary('arith.muli', block, BLOCK)); // among xBC | dt
  const exists = e.less(position, channels + heads);
  const epilogue = new Epilogue(e, { ...spec, first: 0 }, position, exists);
  const y = e.load(e.shift(e.place('raw', position), row, wide), first, exists);
  const context = epilogue.context(epilogue.contextAt('context', row, layers * (taps - 1) * channels));
  const mask = masked ? e.load(e.place('mask', row), 0, null) : undefined;
  const { value, decay } = epilogue.finish(y, epilogue.known(epilogue.operands(), context), mask);
  const to = e.shift(e.place('y', position), row, channels + 2 * heads);
  e.store(to, 0, value, exists);
  e.store(to, heads, decay, epilogue.head);
  return k.kernel({ grid: rows * blocks, warps: 4 });
}
