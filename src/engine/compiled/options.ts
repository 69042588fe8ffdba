/** How a compiled engine runs. */
import { type DtypeLike, computeDtypeKind, computeDtypeOf } from '../../base/compute_dtypes.js';
import * as kinds from '../../base/option_kinds.js';
import { type OptionRules, OptionTable } from '../../base/options.js';
import type { CompileHook } from '../../jit/index.js';
import { graphCacheDir, onGpu } from '../../runtime/index.js';
import { isParallel, type Spread } from '../placement/spread.js';
import type { DecodingProgramOptions } from './decoding_program.js';
import type { StateDtype } from './program_states.js';

export interface CompiledEngineOptions {
  /** Stored type of the matrices. Default 'auto': bfloat16 where the checkpoint has it, else float32. */
  dtype?: DtypeLike;
  /** Batch sizes whose programs stay. Default [1]; those of others are dropped, the longest unused first, beyond seven or where their states take too much. */
  batches?: readonly number[];
  /** Prefill lengths. A prompt runs in these pieces, the last one masked. */
  segments?: readonly number[];
  /** Tokens per decoding call, in a loop inside the program: what a call costs besides is paid once. Default 16 on a CPU, 32 on a GPU. */
  block?: number;
  /** Tokens per chunk of the scan. Default 64 on a CPU, 128 on a GPU. */
  chunk_size?: number;
  /**
   * How a CPU multiplies prompts by bfloat16 matrices: 'auto' (default) in bfloat16, inputs and results rounded, where the processor has
   * instructions for it; 'float32' widens the matrices, exactly, at about two thirds of the speed. 'bfloat16' is 'auto', and tokens that are
   * written round what meets the matrices, too (sums stay float32), as llama.cpp does and transformers with that dtype: faster for
   * several rows on a processor with avx512_bf16.
   */
  products?: 'auto' | 'float32' | 'bfloat16';
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
  /**
   * On several devices: where they add up what each has of a layer (tp_plan) or tell one another the stream (device_map), 'inside' the program that XLA
   * compiles, which calls NCCL, or 'between' parts of it. Default: inside on GPUs, and between on CPUs, where the former cannot be.
   */
  sums?: 'inside' | 'between';
  /**
   * With device_map: prompts pass through the devices in pieces of so many tokens, the next piece on the first device while the second has the one
   * before. Segments that are no multiple pass whole. Default 512.
   */
  piece?: number;
  on_compile?: CompileHook;
}

const SEGMENTS = [16, 64, 256, 512] as const;
const GPU_SEGMENTS = [16, 128, 2048] as const;
/** On several devices a segment of many pieces costs no compilation, and the more pieces, the less devices wait at its ends. */
const PIECES = [1, 2, 4, 8] as const;
const PIECE = 512;

const size = kinds.integer({ min: 1 });

/** Rules of CompiledEngineOptions. */
export const ENGINE_RULES: OptionRules<CompiledEngineOptions> = {
  dtype: { kind: computeDtypeKind, default: 'auto' },
  batches: { kind: kinds.listOf(size, 'batch sizes, integers of 1 or more'), default: [1] },
  segments: { kind: kinds.listOf(size, 'lengths, integers of 1 or more', 1) },
  block: { kind: size },
  chunk_size: { kind: size },
  products: { kind: kinds.oneOf('auto', 'float32', 'bfloat16'), default: 'auto' },
  merge_step: { kind: kinds.boolean },
  state_dtype: { kind: kinds.oneOf('float32', 'bfloat16'), default: 'float32' },
  layered: { kind: kinds.boolean },
  fixed_blocks: { kind: kinds.boolean },
  sums: { kind: kinds.oneOf('inside', 'between') },
  piece: { kind: size, default: 512 },
  on_compile: { kind: kinds.func },
};

/** Options of a compiled engine by itself. */
export const ENGINE_TABLE = new OptionTable<CompiledEngineOptions>('new CompiledEngine()', ENGINE_RULES);

/**
 * The program for these batch sizes, with what is best on this device where nothing was asked for.
 * @param spread where it lies on several devices: loops whose sums are between programs are that many steps one after another
 */
export function programOptions(
  options: CompiledEngineOptions,
  batches: readonly number[],
  spread: Spread | null = null,
): DecodingProgramOptions {
  const gpu = onGpu();
  const parallel = isParallel(spread);
  const sums = spread ? (options.sums ?? (gpu ? 'inside' : 'between')) : undefined;
  const unrolled = spread !== null && sums !== 'inside';
  const piece = spread && !parallel && spread.devices.length > 1 ? (options.piece ?? PIECE) : undefined;
  const usual = gpu ? GPU_SEGMENTS : SEGMENTS;
  const segments = piece ? [...usual.filter((t) => t < piece), ...PIECES.map((n) => n * piece)] : usual;
  const blockHere = unrolled ? (gpu ? 8 : 1) : gpu ? 32 : 16;
  return {
    dtype: computeDtypeOf(options.dtype ?? 'auto')!,
    batches,
    segments: [...new Set(options.segments ?? segments)].sort((a, b) => a - b),
    block: options.block ?? blockHere,
    countedBlocks: spread === null && !(options.fixed_blocks ?? gpu),
    chunkSize: options.chunk_size ?? (gpu ? 128 : undefined),
    stateDtype: options.state_dtype,
    bf16Scan: gpu,
    mergeStep: options.merge_step ?? (gpu || undefined),
    pack: !gpu,
    layered: options.layered ?? gpu,
    kernels: options.products !== 'float32',
    roundedRows: options.products === 'bfloat16' && !gpu,
    graphs: graphCacheDir(),
    zeroes: parallel,
    ...(sums && { sums }),
    ...(piece && { piece }),
    onCompile: options.on_compile,
  };
}
