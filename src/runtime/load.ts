/**
 * Loading the native TensorFlow backend from the runtime folder (see setup.ts). Where tfjs-node requires
 * '@tensorflow/tfjs', a stand-in there answers with our copy, so that one engine serves all.
 */
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import * as path from 'node:path';
import { isMainThread } from 'node:worker_threads';
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../base/errors.js';
import { applyDefaults, isLoaded, markLoaded } from './environment.js';
import { missingCudaLibraries } from './gpu.js';
import { addonPath, NATIVE_VERSION, packageDir, readManifest, runtimeDir } from './paths.js';

const SHARED = Symbol.for('tfjs-mamba2.tfjs');

/** Notices that libtensorflow prints while it loads, whatever the environment says. */
const NOTICE =
  /^(WARNING: All log messages before absl|I\d{4} |\d{4}-\d\d-\d\d .*: I |To enable the following instr|\s*$)/;

/**
 * Loads tfjs-node-gpu from the runtime folder; registers the backend 'tensorflow' and selects it. A second call only
 * selects it. Settings of configureRuntime() must be made before.
 *
 * @param device `cpu` hides GPUs and prefers the smaller library; it counts only at the first call. Default `auto`
 * @throws DeviceError when no runtime is set up, or it does not load
 * @example
 * loadTensorFlow();
 * tf.matMul(a, b); // runs in TensorFlow
 */
export function loadTensorFlow(device: 'auto' | 'cpu' | 'gpu' = 'auto'): void {
  if (isLoaded() && tf.findBackendFactory('tensorflow')) {
    selectSync();
    return;
  }
  const dir = runtimeDir(device);
  if (!dir) throw new DeviceError('The TensorFlow runtime is not set up. Run `npx mamba2 setup`.');
  if (device === 'cpu') process.env.CUDA_VISIBLE_DEVICES = '-1';
  applyDefaults(dir);
  restoreOldUtil();
  const require = createRequire(path.join(dir, 'package.json'));
  (globalThis as { [SHARED]?: unknown })[SHARED] = createRequire(import.meta.url)('@tensorflow/tfjs');
  try {
    const guard = stderrGuard(dir);
    shareEnvironment(guard);
    quietly(guard, () => void require(addonPath(dir)));
    require(packageDir(dir));
  } catch (error) {
    throw new DeviceError(
      `The TensorFlow runtime in ${dir} does not load: ${(error as Error).message}. Run \`npx mamba2 setup --force\`` +
        `${readManifest(dir)?.variant === 'gpu' ? ' --gpu' : ''}.`,
      { dir, missing: missingCudaLibraries(dir) },
      { cause: error },
    );
  }
  registerKernels(dir);
  markLoaded();
  selectSync();
}

function selectSync(): void {
  // With a synchronous factory, as tfjs-node's, the backend is in place when this returns.
  void tf.setBackend('tensorflow');
  if (tf.getBackend() !== 'tensorflow') throw new DeviceError('The tensorflow backend could not be selected.');
}

/** Node 23 dropped two functions of util that tfjs-node 4.22.0 calls. */
function restoreOldUtil(): void {
  const util = createRequire(import.meta.url)('node:util') as Record<string, unknown>;
  util.isNullOrUndefined ??= (value: unknown) => value === null || value === undefined;
  util.isArray ??= Array.isArray;
}

let kernels: readonly string[] = [];

/**
 * Names of the kernels of our own that programs for this CPU may call (native/host_kernels.cc); none before TensorFlow is loaded.
 * `TFJS_MAMBA2_NATIVE=0` leaves them out.
 */
export function hostKernels(): readonly string[] {
  return kernels;
}

/** native/host_kernels.cc as it is compiled. */
interface HostAddon {
  /** See NATIVE_VERSION. */
  readonly version: number;
  /** Makes the kernels that run here known to XLA; returns their names. */
  register(): string[];
  compactMemory(): void;
  /** Multiprocessors and compute capability. */
  gpu(): readonly [number, number];
  /** Whether TensorFlow may round float32 products to TF32; returns whether it has that switch. */
  tensorFloat32(allowed: boolean): boolean;
}

let addon: HostAddon | null = null;

/**
 * To be called once a model is in use: gives memory back that loading and compiling have left over (150 to 200 MB for 130m), and puts what
 * is held in blocks of 32 MiB and more, weights above all, into pages of 2 MiB where Linux has them (as of 6.1). Decoding reads all weights
 * for every token and gains a tenth to a third. It happens in the background: a second for 400 MB.
 */
export function compactMemory(): void {
  addon?.compactMemory();
}

let gpu: readonly [number, number] | null = null;

/** What the driver says, asked once, as soon as there is an addon to ask. */
function gpuSizes(): readonly [number, number] {
  return (gpu ??= addon?.gpu() ?? null) ?? [0, 0];
}

/** Multiprocessors of the GPU that has fewest of those this process sees, as its driver says. 0 where it is not known. */
export function multiprocessors(): number {
  return gpuSizes()[0];
}

/** Compute capability of the oldest GPU that this process sees, times ten: 80 for 8.0. 0 where it is not known. */
export function computeCapability(): number {
  return gpuSizes()[1];
}

/** The addon, if it is of this version; else null, and one line that says so. */
export function checkedAddon<T extends { readonly version?: number }>(found: T, dir: string): T | null {
  if (found.version === NATIVE_VERSION) return found;
  process.emitWarning(
    `The kernels in ${dir} are of version ${found.version ?? 'none'}, expected ${NATIVE_VERSION}: models run without them, some slower. ` +
      'Run `npx mamba2 setup --force`, or unset TFJS_MAMBA2_RUNTIME.',
    { code: 'MAMBA2_NATIVE_VERSION' },
  );
  return null;
}

/** Makes the kernels known to XLA. Without them (another libtensorflow or processor) XLA's own code does their work. */
function registerKernels(dir: string): void {
  const file = path.join(path.dirname(addonPath(dir)), 'host_kernels.node');
  if (process.env['TFJS_MAMBA2_NATIVE'] === '0' || !fs.existsSync(file)) return;
  addon = checkedAddon(createRequire(import.meta.url)(file) as HostAddon, dir);
  kernels = addon?.register() ?? [];
  // NVIDIA's libraries read the variable, but XLA chooses among their products and its own by what TensorFlow says of each
  if (process.env.NVIDIA_TF32_OVERRIDE === '0') addon?.tensorFloat32(false);
}

/** native/stderr_guard.cc as it is compiled. */
interface StderrGuard {
  begin(): boolean;
  /** Puts stderr back; returns what was written meanwhile. */
  end(): string;
  /** Sets a variable of the process, for its libraries. */
  setEnvironment(name: string, value: string): boolean;
}

function stderrGuard(dir: string): StderrGuard | null {
  try {
    return createRequire(import.meta.url)(path.join(path.dirname(addonPath(dir)), 'stderr_guard.node')) as StderrGuard;
  } catch {
    return null;
  }
}

/** Variables that TensorFlow, XLA and CUDA read. */
const OF_LIBRARIES = /^(TF_|XLA_|CUDA_|NVIDIA_|OMP_)/;

/** The process.env of a worker thread is a copy of its own: what libraries read is told to the process. */
function shareEnvironment(guard: StderrGuard | null): void {
  if (isMainThread) return;
  for (const [name, value] of Object.entries(process.env))
    if (OF_LIBRARIES.test(name) && value !== undefined) guard?.setEnvironment(name, value);
}

/** Runs `work` with stderr kept aside, then prints what was there beyond the known notices. */
function quietly(guard: StderrGuard | null, work: () => void): void {
  if (guard === null || Number(process.env.TF_CPP_MIN_LOG_LEVEL) < 2 || !guard.begin()) {
    work();
    return;
  }
  try {
    work();
  } finally {
    const rest = guard
      .end()
      .split('\n')
      .filter((line) => !NOTICE.test(line));
    if (rest.length) process.stderr.write(`${rest.join('\n')}\n`);
  }
}
