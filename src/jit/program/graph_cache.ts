/**
 * Where a program's graph goes before TensorFlow loads it: into a temporary folder, or into one that is kept, so that the next
 * process need not trace anew. Tracing a large program takes most of a second.
 */
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { cpuFeatures } from '../../runtime/cpu.js';
import { computeCapability, multiprocessors } from '../../runtime/load.js';
import { TENSORFLOW_VERSION } from '../../runtime/paths.js';
import { nodeBackend } from '../../runtime/binding.js';
import type { GraphCache, TensorSpec, VariableSpec } from '../types.js';

/** What one must know of a traced function to call it. */
export interface Signature {
  inputs: Record<string, TensorSpec>;
  outputs: Record<string, TensorSpec>;
}

/** Written last: a folder with it is complete. */
const SIGNATURES = 'signatures.json';

/** The folder of a program: by the caller's key, its variables, its functions' names and what graphs depend on besides. */
export function graphFolder(
  cache: GraphCache,
  variables: ReadonlyMap<string, VariableSpec>,
  functions: readonly string[],
): string {
  const specs = [...variables].map(([name, { shape, dtype }]) => [name, shape, dtype]);
  const gpu = nodeBackend().isUsingGpuDevice;
  // kernels of ours have as many blocks as there are multiprocessors; old cards, and who asks for it, have none
  const kernels = [multiprocessors(), computeCapability(), process.env['TFJS_MAMBA2_TRITON'] !== '0'];
  const around = [TENSORFLOW_VERSION, cpuFeatures(), gpu, ...(gpu ? kernels : [])];
  const text = JSON.stringify([cache.key, specs, functions, around]);
  return path.join(cache.folder, createHash('sha256').update(text).digest('hex').slice(0, 32));
}

/** The signatures of a kept graph, or null when there is none of these functions. */
export function keptSignatures(folder: string, functions: readonly string[]): Record<string, Signature> | null {
  try {
    const kept = JSON.parse(fs.readFileSync(path.join(folder, SIGNATURES), 'utf8')) as Record<string, Signature>;
    return functions.every((name) => kept[name]?.inputs && kept[name].outputs) ? kept : null;
  } catch {
    return null;
  }
}

/** Hands a new folder to `use`, and removes it. */
export function withTemporaryFolder<T>(use: (folder: string) => T): T {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-program-'));
  try {
    return use(folder);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Keeps a graph that lies in `from` as `folder`, whole or not at all. A disk that takes nothing only means that nothing is kept. An earlier one
 * goes first: its name says what it is of, so it was damaged.
 */
export function keepGraph(from: string, folder: string, signatures: Record<string, Signature>): void {
  const aside = `${folder}.${randomBytes(6).toString('hex')}`;
  try {
    fs.mkdirSync(path.dirname(folder), { recursive: true });
    fs.cpSync(from, aside, { recursive: true });
    fs.writeFileSync(path.join(aside, SIGNATURES), JSON.stringify(signatures));
    fs.rmSync(folder, { recursive: true, force: true });
    fs.renameSync(aside, folder);
  } catch {
    fs.rmSync(aside, { recursive: true, force: true });
  }
}
