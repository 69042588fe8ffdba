/** Finding a CUDA device and the libraries it takes, without loading TensorFlow. */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { packageDir } from './paths.js';

/** The libraries that TensorFlow's gpu library opens by name, beside the driver's libcuda.so.1. */
const CUDA_LIBRARIES = [
  'libcudart.so.12',
  'libcublas.so.12',
  'libcublasLt.so.12',
  'libcudnn.so.9',
  'libcufft.so.11',
  'libcusolver.so.11',
  'libcusparse.so.12',
  'libcupti.so.12',
  'libnccl.so.2',
] as const;

/** Whether the dynamic linker finds a library of this name on its own paths (LD_LIBRARY_PATH, ld.so.cache). */
export function canOpen(library: string): boolean {
  try {
    process.dlopen({ exports: {} }, library, os.constants.dlopen.RTLD_LAZY);
    return true;
  } catch (error) {
    // A library that was opened but is no Node addon is refused with these words, and closed again.
    return /did not self-register/.test((error as Error).message);
  }
}

/** Folders inside a runtime where NVIDIA's own wheels were unpacked. */
function nvidiaFolders(runtime: string): string[] {
  const root = path.join(packageDir(runtime), 'deps', 'nvidia');
  if (!fs.existsSync(root)) return [];
  return fs
    .readdirSync(root)
    .map((name) => path.join(root, name, 'lib'))
    .filter((folder) => fs.existsSync(folder));
}

/** Of the libraries a GPU takes, those found neither by the dynamic linker nor in the runtime folder. */
export function missingCudaLibraries(runtime: string | null): string[] {
  const folders = runtime ? [...nvidiaFolders(runtime), path.join(packageDir(runtime), 'deps', 'lib')] : [];
  return CUDA_LIBRARIES.filter(
    (library) => !folders.some((folder) => fs.existsSync(path.join(folder, library))) && !canOpen(library),
  );
}

/** Names of the NVIDIA GPUs that the driver knows, e.g. ['NVIDIA H100 80GB HBM3']; none without a driver. */
export function gpuNames(root = '/proc/driver/nvidia/gpus'): string[] {
  try {
    return fs.readdirSync(root).map((bus) => {
      const text = fs.readFileSync(path.join(root, bus, 'information'), 'utf8');
      return /^Model:\s*(.+)$/m.exec(text)?.[1]!.trim() ?? 'NVIDIA GPU';
    });
  } catch {
    return [];
  }
}

/** Memory of a GPU, in bytes. */
export interface GpuMemory {
  total: number;
  free: number;
}

/** What nvidia-smi prints; null where it is not there, fails or takes five seconds. */
export function nvidiaSmi(...args: string[]): string | null {
  try {
    return execFileSync('nvidia-smi', args, { encoding: 'utf8', timeout: 5000, stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return null;
  }
}

/** What nvidia-smi says of each GPU's memory; none where it is not there. */
export function gpuMemory(): GpuMemory[] {
  const lines = nvidiaSmi('--query-gpu=memory.total,memory.free', '--format=csv,noheader,nounits') ?? '';
  return lines
    .trim()
    .split('\n')
    .map((line) => line.split(',').map((mib) => Number(mib) * 2 ** 20) as [number, number])
    .flatMap(([total, free]) => (Number.isFinite(total) && Number.isFinite(free) ? [{ total, free }] : []));
}

let largest: number | null = null;

/** Memory of the largest GPU there is, in bytes, asked once; Infinity where nothing tells. */
export function largestGpuMemory(): number {
  if (largest === null) {
    const cards = gpuMemory();
    largest = cards.length > 0 ? Math.max(...cards.map(({ total }) => total)) : Infinity;
  }
  return largest;
}
