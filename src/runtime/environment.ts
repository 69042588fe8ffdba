/** Settings that TensorFlow reads from the environment once, while it loads. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { DeviceError } from '../base/errors.js';
import { packageDir, readManifest, type RuntimeVariant } from './paths.js';
import { cpuFeatures } from './cpu.js';
import { RUNTIME_TABLE } from './option_rules.js';
import { canOpen, gpuMemory, gpuNames, type GpuMemory } from './gpu.js';
import { openCaches } from './caches.js';

export interface RuntimeOptions {
  /** Least severe message that TensorFlow prints on stderr: 0 all, 1 warnings, 2 errors, 3 (default) none. */
  logLevel?: 0 | 1 | 2 | 3;
  /** Flags for XLA, e.g. `--xla_cpu_prefer_vector_width=512`; each replaces the flag of that name in XLA_FLAGS. */
  xlaFlags?: readonly string[];
  /** Flags for TensorFlow's bridge to XLA (TF_XLA_FLAGS), likewise. */
  tfXlaFlags?: readonly string[];
  /**
   * Keeps compiled programs on disk for the next run: true for a folder of this machine's kind under the cache folder,
   * a path for another. Default false.
   */
  compileCache?: boolean | string;
  /** Whether float32 products on a GPU may round their inputs to TF32 (10 bits of mantissa). Default: TensorFlow's (true). */
  tf32?: boolean;
  /** Whether GPU memory is taken as needed, not all at the start. Default true. */
  allowGrowth?: boolean;
  /**
   * How TensorFlow takes a GPU's memory (TF_GPU_ALLOCATOR): in regions that double ('bfc', default), or as much as is asked for
   * ('cuda_malloc_async', from drivers with pools of memory), which takes a quarter less for the training of a large model; a call of a small one may be slower by some
   * hundredths. `mamba2 finetune` takes the second where TF_GPU_ALLOCATOR says nothing.
   */
  gpuAllocator?: 'bfc' | 'cuda_malloc_async';
  /** Most memory of each GPU that is taken, in MiB. Default: all that is free. */
  gpuMemoryLimit?: number;
  /** Threads within one op on the CPU. Default: one per core. */
  threads?: number;
  /** GPUs to use, e.g. [0]; an empty list for none. Default all. */
  gpus?: readonly number[];
}

const NO_TF32_FLAG = '--xla_gpu_enable_triton_gemm=false';

let loaded = false;
/** The one GPU that was asked for by number. */
let chosenCard: number | null = null;
/** What configureRuntime() was told of compiled programs last. */
let wantedCache: boolean | string = false;

/** Marks the moment from which the environment is no longer read. */
export function markLoaded(): void {
  loaded = true;
}

/** Whether TensorFlow has been loaded in this process. */
export function isLoaded(): boolean {
  return loaded;
}

/** Joins flags, a later one taking the place of an earlier one of the same name. */
function mergeFlags(current: string | undefined, added: readonly string[]): string {
  const flags = new Map<string, string>();
  for (const flag of [...(current ?? '').split(/\s+/).filter(Boolean), ...added]) {
    flags.set(flag.split('=')[0]!, flag);
  }
  return [...flags.values()].join(' ');
}

/**
 * What TensorFlow is to leave to others of each GPU's free memory, so that it takes no more than a limit: it has no setting for the limit
 * itself. Of several GPUs the one with the least free memory decides.
 * @param limit in MiB @returns MiB; null where no GPU is known, or none has more than the limit
 */
export function memoryLeft(limit: number, cards: readonly GpuMemory[]): number | null {
  const free = Math.min(...cards.map((card) => Math.floor(card.free / 2 ** 20)));
  return Number.isFinite(free) && free > limit ? free - limit : null;
}

/**
 * Sets what TensorFlow reads while it loads. May be called several times, before loadTensorFlow() or selectBackend().
 *
 * @throws DeviceError when TensorFlow is loaded and a setting would change
 * @throws ArgumentError for an option that is unknown, malformed or without effect
 * @example
 * configureRuntime({ compileCache: true, tf32: false });
 */
export function configureRuntime(options: RuntimeOptions): void {
  RUNTIME_TABLE.check(options);
  const wanted: Record<string, string> = {};
  if (options.logLevel !== undefined) wanted.TF_CPP_MIN_LOG_LEVEL = String(options.logLevel);
  // XLA's own products round to TF32 whatever NVIDIA's libraries are told: without them, cuBLAS makes all
  const xlaFlags = [...(options.tf32 === false ? [NO_TF32_FLAG] : []), ...(options.xlaFlags ?? [])];
  if (xlaFlags.length) wanted.XLA_FLAGS = mergeFlags(process.env.XLA_FLAGS, xlaFlags);
  const tfXla = options.tfXlaFlags ?? [];
  if (tfXla.length) wanted.TF_XLA_FLAGS = mergeFlags(process.env.TF_XLA_FLAGS, tfXla);
  if (options.tf32 !== undefined) wanted.NVIDIA_TF32_OVERRIDE = options.tf32 ? '1' : '0';
  if (options.allowGrowth !== undefined) wanted.TF_FORCE_GPU_ALLOW_GROWTH = String(options.allowGrowth);
  // of 'bfc' TensorFlow knows no name
  if (options.gpuAllocator !== undefined)
    wanted.TF_GPU_ALLOCATOR = options.gpuAllocator === 'bfc' ? '' : options.gpuAllocator;
  if (options.threads !== undefined) wanted.TF_NUM_INTRAOP_THREADS = String(options.threads);
  if (options.gpuMemoryLimit !== undefined) {
    const left = memoryLeft(options.gpuMemoryLimit, gpuMemory());
    if (left !== null) wanted.TF_DEVICE_MIN_SYS_MEMORY_IN_MB = String(left);
  }
  if (options.gpus !== undefined) wanted.CUDA_VISIBLE_DEVICES = options.gpus.join(',') || '-1';
  const cache = typeof options.compileCache === 'string' ? path.resolve(options.compileCache) : options.compileCache;
  const changed = Object.keys(wanted).filter((name) => process.env[name] !== wanted[name]);
  if (cache !== undefined && cache !== wantedCache) changed.push('compileCache');
  if (changed.length > 0 && loaded) {
    throw new DeviceError(
      `${changed.join(', ')} cannot change any more: TensorFlow reads them while it loads, and it is loaded. ` +
        'Call configureRuntime() before anything runs on the tensorflow backend.',
      { changed },
    );
  }
  Object.assign(process.env, wanted);
  if (cache !== undefined) wantedCache = cache;
}

/**
 * Leaves TensorFlow one GPU of those that it would see.
 * @param card its number among them, from 0
 * @throws DeviceError when there is none of that number, or TensorFlow is loaded and has another one first
 */
export function chooseGpu(card: number): void {
  const visible = visibleGpus();
  if (loaded) {
    if (card === (chosenCard ?? 0)) return;
    throw new DeviceError(
      `device 'cuda:${card}': TensorFlow is loaded in this process and uses ${chosenCard === null ? 'the first GPU' : `GPU ${chosenCard}`}. Name the device before anything runs.`,
      { device: card, chosen: chosenCard ?? 0 },
    );
  }
  const names = gpuNames();
  const count = visible?.length ?? names.length;
  // without a driver what asks for a GPU says so itself
  if (names.length > 0 && card >= count) {
    throw new DeviceError(
      `device 'cuda:${card}': there ${count === 1 ? 'is 1 GPU' : `are ${count} GPUs`}, numbered from 0${visible ? ', in CUDA_VISIBLE_DEVICES' : ''}.`,
      { device: card, gpus: count },
    );
  }
  process.env.CUDA_VISIBLE_DEVICES = visible?.[card] ?? String(card);
  chosenCard = card;
}

/** Ids of the GPUs that TensorFlow may see, as CUDA_VISIBLE_DEVICES has them; null where it says nothing. */
export function visibleGpus(): string[] | null {
  return process.env.CUDA_VISIBLE_DEVICES?.split(',').filter((id) => id !== '' && id !== '-1') ?? null;
}

/** The number of the GPU that was asked for alone, 0 where none was. */
export function chosenGpu(): number {
  return chosenCard ?? 0;
}

/**
 * Lets XLA use vectors of 512 bits where the processor has them, if TensorFlow is not loaded yet and nobody chose a width. Integer
 * arithmetic on packed weights gains a tenth by it; float32 and bfloat16 products wait for memory and gain nothing.
 */
export function preferWideVectors(): void {
  const flags = process.env.XLA_FLAGS ?? '';
  if (loaded || /xla_cpu_prefer_vector_width/.test(flags) || !cpuFeatures().includes('avx512f')) return;
  process.env.XLA_FLAGS = mergeFlags(flags, ['--xla_cpu_prefer_vector_width=512']);
}

/**
 * For CPUs: XLA would move what a loop computes from constant weights out of the loop, also when that is a widened or unpacked copy of all
 * weights, to be kept in memory and read in every iteration: decoding in a loop would be half as fast instead of a fifth faster.
 */
const LOOP_FLAG = '--xla_disable_hlo_passes=while-loop-invariant-code-motion';

/**
 * For GPUs: products of prompts, of many rows and of training are the libraries', as these choose them. XLA would first try its own in
 * Triton's language and all variants of the libraries' on the card, for most of the time that compiling takes, to be no faster
 * (docs/decisions/013_products_on_gpus.md).
 */
const PRODUCT_FLAGS = ['--xla_gpu_autotune_level=0', NO_TF32_FLAG];

/** For GPUs: kernels of a program are compiled side by side, in so many parts that are linked; a step of training is there a tenth sooner. */
const PARALLEL_FLAGS = [
  '--xla_gpu_enable_llvm_module_compilation_parallelism=true',
  '--xla_gpu_force_compilation_parallelism=16',
];

/** XLA's flags for a device: those there are, and what nobody has chosen otherwise. @param gpu whether it is a GPU */
export function defaultFlags(flags: string, gpu: boolean): string {
  if (!gpu) return /xla_disable_hlo_passes/.test(flags) ? flags : mergeFlags(flags, [LOOP_FLAG]);
  const parallel = /xla_gpu_(enable_llvm_module|force)_compilation_parallelism/.test(flags) ? [] : PARALLEL_FLAGS;
  // one without the other would be slow: products in Triton's language are so where no variants are tried
  const products = /xla_gpu_autotune_level|xla_gpu_enable_triton_gemm=true/.test(flags) ? [] : PRODUCT_FLAGS;
  return mergeFlags(flags, [...products, ...parallel]);
}

/**
 * Whether a runtime that is about to load will find a GPU.
 * @param variant of the runtime's library; undefined where nobody has said @param visible CUDA_VISIBLE_DEVICES
 * @param card whether the machine has one
 */
export function expectsGpu(
  variant: RuntimeVariant | undefined,
  visible: string | undefined,
  card: () => boolean,
): boolean {
  return variant !== 'cpu' && !/^(-1)?$/.test(visible ?? '0') && card();
}

/** Sets, for a runtime about to load, what nobody has set. */
export function applyDefaults(runtime: string): void {
  const card = (): boolean => gpuNames().length > 0 || canOpen('libcuda.so.1');
  const gpu = expectsGpu(readManifest(runtime)?.variant, process.env.CUDA_VISIBLE_DEVICES, card);
  process.env.XLA_FLAGS = defaultFlags(process.env.XLA_FLAGS ?? '', gpu);
  openCaches(wantedCache);
  // Every failure also comes back as a status, which becomes an error: nothing is lost by a quiet stderr.
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '3';
  process.env.TF_FORCE_GPU_ALLOW_GROWTH ??= 'true';
  // XLA takes ptxas and libdevice from here when NVIDIA's wheels came with the runtime.
  const nvcc = path.join(packageDir(runtime), 'deps', 'nvidia', 'cuda_nvcc');
  if (fs.existsSync(nvcc) && !/xla_gpu_cuda_data_dir/.test(process.env.XLA_FLAGS ?? '')) {
    process.env.XLA_FLAGS = mergeFlags(process.env.XLA_FLAGS, [`--xla_gpu_cuda_data_dir=${nvcc}`]);
  }
}
