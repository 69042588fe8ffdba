/** How a compiled engine runs. */
import { ArgumentError } from '../../base/errors.js';
import type { CompileHook } from '../../jit/index.js';
import { graphCacheDir, onGpu } from '../../runtime/index.js';
import type { DecodingProgramOptions, ProgramDtype } from './decoding_program.js';
import type { StateDtype } from './program_states.js';

export interface CompiledEngineOptions {
  /** Stored type of the matrices. Default 'auto': bfloat16 where the checkpoint has it, else float32. */
  dtype?: ProgramDtype;
  /** Batch sizes to define from the start. Default [1]; others are added when first used, which loads the weights again. */
  batches?: readonly number[];
  /** Prefill lengths. A prompt runs in these pieces, the last one masked. */
  segments?: readonly number[];
  /** Tokens per decoding call, in a loop inside the program: what a call costs besides is paid once. Default 16 on a CPU, 32 on a GPU. */
  block?: number;
  /** Tokens per chunk of the scan. Default 64 on a CPU, 128 on a GPU. */
  chunk_size?: number;
  /**
   * How a CPU multiplies prompts by bfloat16 matrices: 'auto' (default) in bfloat16, inputs and results rounded, where the processor has
   * instructions for it; 'float32' widens the matrices, exactly, at about two thirds of the speed.
   */
  products?: 'auto' | 'float32';
  /** Convolution and step sizes of a decoding step in one pass. Default: on a GPU. */
  merge_step?: boolean;
  /** Stored type of recurrent states between calls. Default 'float32'; 'bfloat16' halves their memory and is less exact. */
  state_dtype?: StateDtype;
  /**
   * Prompts are read by one program a layer, the same one for all layers: XLA compiles one layer where it would compile the model. Default: on a
   * GPU. (On a CPU 'auto' products part the program anyhow.)
   */
  layered?: boolean;
  /**
   * Decoding calls make `block` iterations whatever is asked of them; rows that have ended, or have as many tokens as were asked for, stand
   * still for the rest. Default: on a GPU, which otherwise waits for the host before each iteration.
   */
  fixed_blocks?: boolean;
  on_compile?: CompileHook;
}

const SEGMENTS = [16, 64, 256, 512] as const;
const GPU_SEGMENTS = [16, 128, 2048] as const;

/** What an option may be, and in words. */
type Rule = readonly [allows: (value: unknown) => boolean, expected: string];

const count = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;
const COUNT: Rule = [count, 'a positive integer'];
const SWITCH: Rule = [(value) => typeof value === 'boolean', 'true or false'];
const oneOf = (...values: string[]): Rule => [
  (value) => values.includes(value as string),
  values.map((value) => `'${value}'`).join(' or '),
];

const RULES: Record<keyof CompiledEngineOptions, Rule> = {
  dtype: oneOf('auto', 'float32', 'bfloat16'),
  batches: [(value) => Array.isArray(value) && value.every(count), 'a list of positive integers'],
  segments: [
    (value) => Array.isArray(value) && value.length > 0 && value.every(count),
    'a list of at least one positive integer',
  ],
  block: COUNT,
  chunk_size: COUNT,
  products: oneOf('auto', 'float32'),
  merge_step: SWITCH,
  state_dtype: oneOf('float32', 'bfloat16'),
  layered: SWITCH,
  fixed_blocks: SWITCH,
  on_compile: [(value) => typeof value === 'function', 'a function'],
};

/** @throws ArgumentError naming the option, what was got and what is expected */
export function checkEngineOptions(options: CompiledEngineOptions): void {
  for (const [name, [allows, expected]] of Object.entries(RULES)) {
    const got: unknown = options[name as keyof CompiledEngineOptions];
    if (got === undefined || allows(got)) continue;
    const text = typeof got === 'number' ? String(got) : JSON.stringify(got);
    throw new ArgumentError(`The option ${name} of the compiled engine is ${text}, expected ${expected}.`, {
      option: name,
      got,
      expected,
    });
  }
}

/** The program for these batch sizes, with what is best on this device where nothing was asked for. */
export function programOptions(options: CompiledEngineOptions, batches: readonly number[]): DecodingProgramOptions {
  const gpu = onGpu();
  return {
    dtype: options.dtype ?? 'auto',
    batches,
    segments: [...new Set(options.segments ?? (gpu ? GPU_SEGMENTS : SEGMENTS))].sort((a, b) => a - b),
    block: options.block ?? (gpu ? 32 : 16),
    countedBlocks: !(options.fixed_blocks ?? gpu),
    chunkSize: options.chunk_size ?? (gpu ? 128 : undefined),
    stateDtype: options.state_dtype,
    bf16Scan: gpu,
    mergeStep: options.merge_step ?? (gpu || undefined),
    pack: !gpu,
    layered: options.layered ?? gpu,
    kernels: options.products !== 'float32',
    graphs: graphCacheDir(),
    onCompile: options.on_compile,
  };
}
