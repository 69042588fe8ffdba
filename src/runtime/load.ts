/**
 * Loading the native TensorFlow backend from the runtime folder (see setup.ts). Where tfjs-node requires
 * '@tensorflow/tfjs', a stand-in there answers with our copy, so that one engine serves all.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { isMainThread } from 'node:worker_threads';
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../base/errors.js';
import { requireFrom, requireNear } from '../base/package_files.js';
import { applyDefaults, isLoaded, markLoaded } from './environment.js';
import './file_handler.js';
import './other_copies.js';
import { missingCudaLibraries } from './gpu.js';
import { damageOf } from './integrity.js';
import { loadSessions, releaseMemory } from './native_session.js';
import { addonPath, isNamed, NATIVE_VERSION, packageDir, readManifest, runtimeDir } from './paths.js';

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
  const broken = checkRuntime(dir);
  if (device === 'cpu') process.env.CUDA_VISIBLE_DEVICES = '-1';
  applyDefaults(dir);
  restoreOldUtil();
  const require = requireFrom(path.join(dir, 'package.json'));
  (globalThis as { [SHARED]?: unknown })[SHARED] = wholeTfjs();
  try {
    const guard = broken.has('stderr_guard.node') ? null : stderrGuard(dir);
    shareEnvironment(guard);
    quietly(guard, () => void require(addonPath(dir)));
    require(packageDir(dir));
    loadSessions(dir);
  } catch (error) {
    throw new DeviceError(
      `The TensorFlow runtime in ${dir} does not load: ${(error as Error).message}. ${setUpAnew(dir)}`,
      { dir, missing: missingCudaLibraries(dir) },
      { cause: error },
    );
  }
  if (!broken.has('host_kernels.node')) registerKernels(dir);
  markLoaded();
  releaseMemory();
  selectSync();
}

function setUpAnew(dir: string): string {
  return `Run \`npx mamba2 setup --force${readManifest(dir)?.variant === 'gpu' ? ' --gpu' : ''}\`.`;
}

/**
 * A library that was cut would end the process as it is loaded.
 * @returns names of addons that are broken and done without, which is said in one line each
 * @throws DeviceError when the runtime cannot do without what is broken, or another user may have changed it
 */
function checkRuntime(dir: string): ReadonlySet<string> {
  const { needed, optional } = damageOf(dir, isNamed());
  if (needed.length > 0) {
    const others = needed.some((why) => why.startsWith('it '));
    throw new DeviceError(
      `The TensorFlow runtime in ${dir} is not used: ${needed.join('; ')}. ` +
        (others
          ? 'Set one up in a cache folder of your own (XDG_CACHE_HOME), or name this folder in TFJS_MAMBA2_RUNTIME if you trust it.'
          : setUpAnew(dir)),
      { dir, damage: needed },
    );
  }
  for (const [name, why] of optional)
    process.emitWarning(`${name} in ${dir} is left out, since it ${why}: models run without it. ${setUpAnew(dir)}`, {
      code: 'MAMBA2_NATIVE_DAMAGED',
    });
  return new Set(optional.keys());
}

function selectSync(): void {
  // With a synchronous factory, as tfjs-node's, the backend is in place when this returns.
  void tf.setBackend('tensorflow');
  if (tf.getBackend() !== 'tensorflow') throw new DeviceError('The tensorflow backend could not be selected.');
}

/**
 * This program's TensorFlow.js, as `require` gives it: in a bundle it is in no folder of packages. tfjs-node would add its handler of
 * file:// beside ours (file_handler.ts), and tfjs refuses an address that two handlers take.
 */
function wholeTfjs(): unknown {
  const whole = (tf as unknown as { default?: typeof tf }).default ?? tf;
  const io = { ...whole.io, registerLoadRouter: () => undefined, registerSaveRouter: () => undefined };
  return { ...whole, io };
}

/** Node 23 dropped two functions of util that tfjs-node 4.22.0 calls. */
function restoreOldUtil(): void {
  const util = requireNear('node:util') as Record<string, unknown>;
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
  releaseMemory();
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
  addon = checkedAddon(requireNear(file) as HostAddon, dir);
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
    return requireNear(path.join(path.dirname(addonPath(dir)), 'stderr_guard.node')) as StderrGuard;
  } catch {
    return null;
  }
}

/** Variables that TensorFlow, XLA and CUDA read. */
const OF_LIBRARIES = /^(TF_|XLA_|CUDA_|NVIDIA_|OMP_)/;

/** The process.env of a worker thread is a copy of its own, and Bun's of every thread: what libraries read is told to the process. */
function shareEnvironment(guard: StderrGuard | null): void {
  if (isMainThread && !process.versions.bun) return;
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
