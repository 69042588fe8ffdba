/** Where a program's graph is kept, so that the next process need not trace anew: tracing a large program takes most of a second. */
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { cpuFeatures } from '../../runtime/cpu.js';
import { computeCapability, multiprocessors } from '../../runtime/load.js';
import { TENSORFLOW_VERSION } from '../../runtime/paths.js';
import { nodeBackend } from '../../runtime/binding.js';
import type { GraphCache, TensorSpec, VariableSpec } from '../types.js';
import type { OuterGraph } from './outer_graph.js';

/** What one must know of a traced function to call it. */
export interface Signature {
  inputs: Record<string, TensorSpec>;
  outputs: Record<string, TensorSpec>;
  /** Variables that it assigns. */
  assigned: readonly string[];
}

/** Written last: a folder with it is complete. */
const SIGNATURES = 'signatures.json';
/** GraphDefs one after another: the graph, and its parts. */
const GRAPH = 'graph.pb';

/** What SIGNATURES holds. */
interface Kept {
  signatures: Record<string, Signature>;
  /** Names of functions whose parts follow the graph, and bytes of each. */
  parts: readonly (readonly [name: string, bytes: number])[];
  /** Of all bytes, the signatures and the sizes. */
  sha256: string;
}

/** A graph, and what its functions are called with. */
export interface KeptGraph extends OuterGraph {
  readonly signatures: Record<string, Signature>;
}

/** A damaged graph can be one that TensorFlow takes and that computes something else. */
function checksum(bytes: Uint8Array, signatures: Kept['signatures'], parts: Kept['parts']): string {
  return createHash('sha256')
    .update(bytes)
    .update(JSON.stringify([signatures, parts]))
    .digest('hex');
}

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

/** A kept graph, or null when there is none of these functions, or it is not as it was written. */
export function keptGraph(folder: string, functions: readonly string[]): KeptGraph | null {
  try {
    const { signatures, parts, sha256 } = JSON.parse(fs.readFileSync(path.join(folder, SIGNATURES), 'utf8')) as Kept;
    const bytes = fs.readFileSync(path.join(folder, GRAPH));
    if (checksum(bytes, signatures, parts) !== sha256) return null;
    let at = bytes.length - parts.reduce((sum, [, size]) => sum + size, 0);
    const graph = bytes.subarray(0, at);
    const cut = Object.fromEntries(parts.map(([name, size]) => [name, bytes.subarray(at, (at += size))] as const));
    return functions.every((name) => signatures[name]?.inputs && signatures[name].outputs && signatures[name].assigned)
      ? { graph, parts: cut, signatures }
      : null;
  } catch {
    return null;
  }
}

/**
 * Keeps a graph as `folder`, whole or not at all. A disk that takes nothing only means that nothing is kept. An earlier one goes first: its name
 * says what it is of, so it was damaged.
 */
export function keepGraph(folder: string, made: KeptGraph): void {
  const aside = `${folder}.${randomBytes(6).toString('hex')}`;
  try {
    fs.mkdirSync(aside, { recursive: true, mode: 0o700 });
    const bytes = Buffer.concat([made.graph, ...Object.values(made.parts)]);
    fs.writeFileSync(path.join(aside, GRAPH), bytes);
    const { signatures } = made;
    const parts = Object.entries(made.parts).map(([name, part]) => [name, part.length] as const);
    const kept: Kept = { signatures, parts, sha256: checksum(bytes, signatures, parts) };
    fs.writeFileSync(path.join(aside, SIGNATURES), JSON.stringify(kept));
    fs.rmSync(folder, { recursive: true, force: true });
    fs.renameSync(aside, folder);
  } catch {
    fs.rmSync(aside, { recursive: true, force: true });
  }
}
