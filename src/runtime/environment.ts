/** Settings that TensorFlow reads from the environment once, while it loads. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { ArgumentError, DeviceError } from '../base/errors.js';
import { cacheRoot, packageDir, readManifest, type RuntimeVariant, TENSORFLOW_VERSION } from './paths.js';
import { cpuFeatures } from './cpu.js';
import { canOpen, gpuMemory, gpuNames, type GpuMemory } from './gpu.js';
import { pruneCache } from './prune.js';

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
  /** Most memory of each GPU that is taken, in MiB. Default: all that is free. */
  gpuMemoryLimit?: number;
  /** Threads within one op on the CPU. Default: one per core. */
  threads?: number;
  /** GPUs to use, e.g. [0]; an empty list for none. Default all. */
  gpus?: readonly number[];
}

const NO_TF32_FLAG = '--xla_gpu_enable_triton_gemm=false';

let loaded = false;
/** Whether compiled programs are kept in the folder of compileCacheDir(). */
let ownCache = false;

const cacheFlag = (folder: string): string => `--tf_xla_persistent_cache_directory=${folder}`;

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

/** An option from 1 as text. @param what it is @throws ArgumentError */
function wholeNumber(options: RuntimeOptions, name: 'threads' | 'gpuMemoryLimit', what: string): string {
  const value = options[name]!;
  if (!Number.isInteger(value) || value < 1)
    throw new ArgumentError(`${name}: got ${value}, expected a ${what} from 1.`, { [name]: value });
  return String(value);
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
 * @throws ArgumentError when a flag or number is malformed
 * @example
 * configureRuntime({ compileCache: true, tf32: false });
 */
export function configureRuntime(options: RuntimeOptions): void {
  const wanted: Record<string, string> = {};
  if (options.logLevel !== undefined) wanted.TF_CPP_MIN_LOG_LEVEL = String(options.logLevel);
  for (const flag of [...(options.xlaFlags ?? []), ...(options.tfXlaFlags ?? [])]) {
    if (!/^--[\w-]+(=\S*)?$/.test(flag)) {
      throw new ArgumentError(`Got the flag ${JSON.stringify(flag)}; expected --name or --name=value without spaces.`, {
        flag,
      });
    }
  }
  // XLA's own products round to TF32 whatever NVIDIA's libraries are told: without them, cuBLAS makes all
  const xlaFlags = [...(options.tf32 === false ? [NO_TF32_FLAG] : []), ...(options.xlaFlags ?? [])];
  if (xlaFlags.length) wanted.XLA_FLAGS = mergeFlags(process.env.XLA_FLAGS, xlaFlags);
  const tfXla = [...(options.tfXlaFlags ?? [])];
  if (options.compileCache && !(options.compileCache === true && ownCache)) {
    const folder = options.compileCache === true ? compileCacheDir() : path.resolve(options.compileCache);
    if (/\s/.test(folder)) {
      throw new ArgumentError(`The folder of compiled programs may have no space in its path: ${folder}`, { folder });
    }
    fs.mkdirSync(folder, { recursive: true });
    tfXla.push(cacheFlag(folder));
  }
  if (tfXla.length) wanted.TF_XLA_FLAGS = mergeFlags(process.env.TF_XLA_FLAGS, tfXla);
  if (options.tf32 !== undefined) wanted.NVIDIA_TF32_OVERRIDE = options.tf32 ? '1' : '0';
  if (options.allowGrowth !== undefined) wanted.TF_FORCE_GPU_ALLOW_GROWTH = String(options.allowGrowth);
  if (options.threads !== undefined) wanted.TF_NUM_INTRAOP_THREADS = wholeNumber(options, 'threads', 'whole number');
  if (options.gpuMemoryLimit !== undefined) {
    const limit = Number(wholeNumber(options, 'gpuMemoryLimit', 'whole number of MiB'));
    const left = memoryLeft(limit, gpuMemory());
    if (left !== null) wanted.TF_DEVICE_MIN_SYS_MEMORY_IN_MB = String(left);
  }
  if (options.gpus !== undefined) wanted.CUDA_VISIBLE_DEVICES = options.gpus.join(',') || '-1';
  const changed = Object.keys(wanted).filter((name) => process.env[name] !== wanted[name]);
  if (changed.length > 0 && loaded) {
    throw new DeviceError(
      `${changed.join(', ')} cannot change any more: TensorFlow reads them while it loads, and it is loaded. ` +
        'Call configureRuntime() before anything runs on the tensorflow backend.',
      { changed },
    );
  }
  Object.assign(process.env, wanted);
  if (options.compileCache !== undefined && !loaded) ownCache = options.compileCache === true;
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

/** XLA's flags for a device: those there are, and what nobody has chosen otherwise. @param gpu whether it is a GPU */
export function defaultFlags(flags: string, gpu: boolean): string {
  if (!gpu) return /xla_disable_hlo_passes/.test(flags) ? flags : mergeFlags(flags, [LOOP_FLAG]);
  // one without the other would be slow: products in Triton's language are so where no variants are tried
  return /xla_gpu_autotune_level|xla_gpu_enable_triton_gemm=true/.test(flags)
    ? flags
    : mergeFlags(flags, PRODUCT_FLAGS);
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

/** Where graphs of programs may be kept for the next process; null unless compiled programs are kept in the cache folder too. */
export function graphCacheDir(): string | null {
  return ownCache ? path.join(cacheRoot(), 'graphs') : null;
}

/** Bytes of compiled programs and of graphs that are kept at most. A model with its usual functions takes some tens of megabytes. */
const [MOST_PROGRAMS, MOST_GRAPHS] = [4 * 2 ** 30, 2 ** 29];

/** Sets, for a runtime about to load, what nobody has set. */
export function applyDefaults(runtime: string): void {
  const card = (): boolean => gpuNames().length > 0 || canOpen('libcuda.so.1');
  const gpu = expectsGpu(readManifest(runtime)?.variant, process.env.CUDA_VISIBLE_DEVICES, card);
  process.env.XLA_FLAGS = defaultFlags(process.env.XLA_FLAGS ?? '', gpu);
  // flags change what is compiled, and TensorFlow's key for it does not contain them
  if (ownCache) {
    const folder = compileCacheDir();
    fs.mkdirSync(folder, { recursive: true });
    pruneCache(path.dirname(folder), MOST_PROGRAMS, 2);
    pruneCache(graphCacheDir()!, MOST_GRAPHS);
    process.env.TF_XLA_FLAGS = mergeFlags(process.env.TF_XLA_FLAGS, [cacheFlag(folder)]);
  }
  // Every failure also comes back as a status, which becomes an error: nothing is lost by a quiet stderr.
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '3';
  process.env.TF_FORCE_GPU_ALLOW_GROWTH ??= 'true';
  // XLA takes ptxas and libdevice from here when NVIDIA's wheels came with the runtime.
  const nvcc = path.join(packageDir(runtime), 'deps', 'nvidia', 'cuda_nvcc');
  if (fs.existsSync(nvcc) && !/xla_gpu_cuda_data_dir/.test(process.env.XLA_FLAGS ?? '')) {
    process.env.XLA_FLAGS = mergeFlags(process.env.XLA_FLAGS, [`--xla_gpu_cuda_data_dir=${nvcc}`]);
  }
}

/**
 * Where compiled programs are kept: a folder per kind of processor, since code that XLA made for one must not run on
 * another, per version of TensorFlow, and for XLA's flags and whether float32 may be rounded to TF32.
 */
function compileCacheDir(): string {
  const kind = [
    os.cpus()[0]?.model,
    process.arch,
    TENSORFLOW_VERSION,
    ...cpuFeatures(),
    process.env.XLA_FLAGS ?? '',
    // products in whole float32 are other programs
    ...(process.env.NVIDIA_TF32_OVERRIDE === '0' ? ['float32'] : []),
  ].join('|');
  return path.join(cacheRoot(), 'xla', createHash('sha256').update(kind).digest('hex').slice(0, 16));
}
