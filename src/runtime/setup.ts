/**
 * Setting up the native runtime: tfjs-node-gpu with a current libtensorflow. tfjs-node's own installer downloads a
 * libtensorflow of 2022 that knows no current GPU; the library in TensorFlow's Python wheel is current and exports the
 * same C interface.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { DeviceError } from '../base/errors.js';
import { missingCudaLibraries } from './gpu.js';
import { closeToWriters, damageOf, noteFiles } from './integrity.js';
import { exitCodeOf, onStopSignal } from '../base/stop_signals.js';
import { withLock } from '../base/lock.js';
import { replaceFolder } from '../base/whole_files.js';
import {
  cacheRoot,
  readManifest,
  runtimeSlot,
  TENSORFLOW_VERSION,
  TFJS_NODE_VERSION,
  type RuntimeManifest,
} from './paths.js';
import { SETUP_TABLE } from './option_rules.js';
import { noSpace, setupError } from './setup_failure.js';
import {
  checkTools,
  compileAddon,
  downloadWheels,
  dropBuildFiles,
  fetchPackages,
  linkTensorFlow,
  locateTensorFlow,
  unpackNvidia,
  unpackTensorFlow,
  verifyRuntime,
} from './setup_steps.js';
import { NVIDIA_WHEELS, wheelFor } from './sources.js';

export interface SetupOptions {
  /** The library that runs on NVIDIA GPUs too, and CUDA 12 unless the system has it. Default false. */
  gpu?: boolean;
  /** A folder with libtensorflow_cc.so.2, libtensorflow_framework.so.2 and include/, used in place of the wheel. */
  libtensorflow?: string;
  /** Sets up anew even if a whole runtime is there. Default false. */
  force?: boolean;
  /** The Python 3 that has pip. Default `python3`. */
  python?: string;
  /** Called with one line per step. */
  onStep?: (line: string) => void;
  /** Shows pip's progress bar on stderr. Default: whether stderr is a terminal. */
  showProgress?: boolean;
}

export interface SetupResult extends RuntimeManifest {
  /** The runtime folder. */
  dir: string;
  /** False when it was there already. */
  built: boolean;
}

/**
 * Makes the TensorFlow runtime ready in the cache folder; does nothing when it is there already. Built aside and renamed
 * when whole, so a failure or an interruption leaves nothing half done; two set-ups at once wait for each other.
 *
 * @throws DeviceError that says what is missing (network, Python, pip, compiler, space, a wheel for this platform) and
 *   what to do
 * @example
 * await setupRuntime({ onStep: (line) => process.stderr.write(line + '\n') });
 */
export async function setupRuntime(options: SetupOptions = {}): Promise<SetupResult> {
  SETUP_TABLE.check(options);
  const variant = options.gpu ? 'gpu' : 'cpu';
  const slot = runtimeSlot(variant);
  const step = options.onStep ?? (() => {});
  const library = options.libtensorflow ? path.resolve(options.libtensorflow) : null;
  const ready = (): SetupResult | null => {
    const manifest = options.force ? null : readManifest(slot);
    if (!manifest || (library && manifest.library !== library)) return null;
    const { needed, optional } = damageOf(slot);
    if (needed.length + optional.size > 0) {
      step(`the runtime is damaged and made anew: ${[...needed, ...optional].join('; ')}`);
      return null;
    }
    return { ...manifest, dir: slot, built: false };
  };
  const present = ready();
  if (present) return present;
  const wheel = library ? null : wheelFor(variant);
  if (library) locateTensorFlow(library);
  else if (!wheel) throw unsupported(variant);
  checkLibc();
  try {
    fs.mkdirSync(path.dirname(slot), { recursive: true, mode: 0o755 });
  } catch (error) {
    throw setupError(
      `The cache folder ${path.dirname(slot)} cannot be made: ${(error as Error).message}.`,
      'Name another in XDG_CACHE_HOME.',
      { folder: path.dirname(slot) },
    );
  }
  return withLock(
    `${slot}.lock`,
    async () => {
      const meanwhile = ready(); // another process may have done it while we waited
      if (meanwhile) return meanwhile;
      const work = `${slot}.building`;
      fs.rmSync(work, { recursive: true, force: true });
      const off = onStopSignal((signal) => {
        fs.rmSync(work, { recursive: true, force: true });
        process.exit(exitCodeOf(signal));
      });
      try {
        const result = await build(work, slot, { ...options, variant, library, wheel, step });
        return result;
      } catch (error) {
        throw (error as NodeJS.ErrnoException).code === 'ENOSPC' ? noSpace({ folder: work }) : error;
      } finally {
        off();
        fs.rmSync(work, { recursive: true, force: true });
      }
    },
    { onWait: (holder) => step(`waiting for another set-up (process ${holder})`) },
  );
}

type BuildOptions = SetupOptions & {
  variant: 'cpu' | 'gpu';
  library: string | null;
  wheel: ReturnType<typeof wheelFor>;
  step: (line: string) => void;
};

async function build(work: string, slot: string, options: BuildOptions): Promise<SetupResult> {
  const { variant, library, wheel, step } = options;
  const python = options.python ?? 'python3';
  const showProgress = options.showProgress ?? Boolean(process.stderr.isTTY);
  const compiler = await checkTools(library ? null : python);
  fs.mkdirSync(work, { recursive: true, mode: 0o755 });
  // Asked before TensorFlow's own wheel is fetched, so that space and time are known from the start.
  const nvidia = variant === 'gpu' && !library && missingCudaLibraries(null).length > 0 ? NVIDIA_WHEELS : [];
  const megabytes = [...(wheel ? [wheel] : []), ...nvidia].reduce((sum, { megabytes: size }) => sum + size, 0);
  checkSpace(work, megabytes * 4.5 + 100);
  const steps = 4 + (nvidia.length ? 1 : 0);
  let done = 0;
  const next = (line: string) => step(`[${++done}/${steps}] ${line}`);

  next(`fetching tfjs-node-gpu ${TFJS_NODE_VERSION} with npm`);
  await fetchPackages(work);
  if (wheel) {
    next(`fetching the libraries of ${wheel.name} ${wheel.version} with pip (${wheel.megabytes} MB)`);
    const downloads = path.join(work, 'wheels');
    const files = await downloadWheels([wheel], downloads, { python, showProgress });
    await unpackTensorFlow(work, files[0]!, python);
    fs.rmSync(downloads, { recursive: true });
  } else {
    next(`using the libraries in ${library}`);
    linkTensorFlow(work, locateTensorFlow(library as string));
  }
  if (nvidia.length) {
    next(`fetching CUDA 12 with pip (${nvidia.reduce((sum, { megabytes: size }) => sum + size, 0)} MB)`);
    const downloads = path.join(work, 'wheels');
    await unpackNvidia(work, await downloadWheels(nvidia, downloads, { python, showProgress }), python);
    fs.rmSync(downloads, { recursive: true });
  }
  next('compiling the addon');
  await compileAddon(work, compiler);
  next('trying it');
  const tensorflow = await verifyRuntime(work);
  dropBuildFiles(work);
  const manifest: RuntimeManifest = {
    variant,
    tfjsNode: TFJS_NODE_VERSION,
    tensorflow,
    library: library ?? `${(wheel as { name: string }).name} ${TENSORFLOW_VERSION}`,
    created: new Date().toISOString(),
  };
  fs.writeFileSync(path.join(work, 'package.json'), JSON.stringify({ name: 'tfjs-mamba2-runtime', private: true }));
  fs.writeFileSync(path.join(work, 'runtime.json'), JSON.stringify(manifest, null, 2));
  closeToWriters(work);
  noteFiles(work);
  // a running program may still have the old runtime open
  await replaceFolder(work, slot, `${slot}.old`);
  return { ...manifest, dir: slot, built: true };
}

function unsupported(variant: 'cpu' | 'gpu'): DeviceError {
  const platform = `${process.platform}-${process.arch}`;
  const what =
    variant === 'gpu' && platform === 'linux-arm64'
      ? 'TensorFlow publishes no GPU library for linux-arm64.'
      : `The native runtime is not available for ${platform} (linux-x64 and linux-arm64 are).`;
  return setupError(what, 'If you have one, name its folder by --libtensorflow DIR.', { platform, variant });
}

/** The wheels' libraries are built against glibc. */
function checkLibc(): void {
  if (process.platform !== 'linux') return;
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  if (header.glibcVersionRuntime) return;
  throw setupError(
    'This Linux has no glibc (musl, as in Alpine), which TensorFlow’s libraries need.',
    'Use a glibc distribution (Debian, Ubuntu, Fedora).',
  );
}

function checkSpace(folder: string, megabytes: number): void {
  const { bavail, bsize } = fs.statfsSync(folder);
  const free = (bavail * bsize) / 2 ** 20;
  if (free >= megabytes) return;
  throw setupError(
    `Set-up needs ${(megabytes / 1024).toFixed(1)} GB in ${cacheRoot()}, and ${(free / 1024).toFixed(1)} GB are free.`,
    'Free some space, or name a cache folder on another disk in XDG_CACHE_HOME.',
    { needed: megabytes, free },
  );
}
