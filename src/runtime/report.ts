/** An honest account of what computations run on. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { cpuFeatures } from './cpu.js';
import { canOpen, gpuNames, missingCudaLibraries } from './gpu.js';
import { hostKernels } from './load.js';
import { readManifest, runtimeDir } from './paths.js';
import { packageVersion } from './version.js';
import { findNodeBackend } from './binding.js';

export interface DeviceReport {
  /** Version of this package. */
  package: string;
  node: string;
  /** e.g. `linux-x64` */
  platform: string;
  /** Version of TensorFlow.js. */
  tfjs: string;
  /** Version of the TensorFlow library in use, null on another backend. */
  tensorflow: string | null;
  /** Where that library came from, e.g. `tensorflow-cpu 2.21.0`. */
  library: string | null;
  /** The runtime folder, null when none is set up. */
  runtime: string | null;
  /** The tfjs backend selected: `tensorflow`, `wasm` or `cpu`. */
  backend: string;
  /** Where it computes. */
  device: 'cpu' | 'gpu';
  /** With the kernels of this package that programs for the CPU may call; none before TensorFlow is loaded. */
  cpu: { model: string; cores: number; features: string[]; kernels: readonly string[] };
  gpu: { names: string[]; used: boolean; /** Why none is used. */ reason: string | null };
}

/** What is in use in this process now. Loads nothing; see selectBackend(). */
export function deviceReport(): DeviceReport {
  const backend = tf.getBackend();
  const native = findNodeBackend();
  const runtime = runtimeDir();
  const used = backend === 'tensorflow' && native?.isUsingGpuDevice === true;
  const cpus = os.cpus();
  return {
    package: packageVersion(),
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    tfjs: tf.version_core,
    tensorflow: backend === 'tensorflow' ? (native?.binding.TF_Version ?? null) : null,
    library: backend === 'tensorflow' && runtime ? (readManifest(runtime)?.library ?? null) : null,
    runtime,
    backend,
    device: used ? 'gpu' : 'cpu',
    cpu: {
      model: cpus[0]?.model ?? process.arch,
      cores: cpus.length,
      features: cpuFeatures(),
      kernels: hostKernels(),
    },
    gpu: { names: gpuNames(), used, reason: used ? null : gpuReason(runtime, backend) },
  };
}

/** Why no GPU is used, as one sentence that says what to do. */
export function gpuReason(runtime: string | null, backend = 'tensorflow'): string {
  if (!canOpen('libcuda.so.1')) {
    return 'the NVIDIA driver is not installed (libcuda.so.1 was not found).';
  }
  if (gpuNames().length === 0 && !fs.existsSync('/dev/nvidia0')) return 'the NVIDIA driver reports no GPU.';
  if (/^(-1)?$/.test(process.env.CUDA_VISIBLE_DEVICES ?? '0')) {
    return 'GPUs are hidden from this process (CUDA_VISIBLE_DEVICES, or the device cpu was asked for).';
  }
  if (!runtime) return 'no TensorFlow runtime is set up; run `npx mamba2 setup --gpu`.';
  if (readManifest(runtime)?.variant !== 'gpu') {
    return 'the TensorFlow runtime is the one for CPUs; run `npx mamba2 setup --gpu`.';
  }
  const missing = missingCudaLibraries(runtime);
  if (missing.length) {
    return `these CUDA libraries were not found: ${missing.join(', ')}; run \`npx mamba2 setup --gpu --force\`.`;
  }
  if (backend !== 'tensorflow') return `the ${backend} backend is in use; choose the device gpu.`;
  return 'TensorFlow found no GPU it can use; set TF_CPP_MIN_LOG_LEVEL=0 to read its own words.';
}
