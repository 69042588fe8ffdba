/** What is kept on disk for the next process: compiled programs, and the graphs of models. Opened once, as TensorFlow is loaded. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { cpuFeatures } from './cpu.js';
import { cacheRoot, TENSORFLOW_VERSION } from './paths.js';
import { privateFolder } from '../base/private_folder.js';
import { isProcessFolder, ProgramCache } from './program_cache.js';
import { pruneCache } from './prune.js';

const FLAG = '--tf_xla_persistent_cache_directory=';

/** Bytes of compiled programs and of graphs that are kept at most. A model with its usual functions takes some tens of megabytes. */
const [MOST_PROGRAMS, MOST_GRAPHS] = [4 * 2 ** 30, 2 ** 29];

let programs: ProgramCache | null = null;
let graphs: string | null = null;

/** Where graphs of programs may be kept for the next process; null unless compiled programs are kept in the cache folder too. */
export function graphCacheDir(): string | null {
  return graphs;
}

/** Where compiled programs are kept for the next process; null where none are. */
export function programCache(): ProgramCache | null {
  return programs;
}

/** A folder of the cache, made if need be; null, and one line that says why, where others than this user may write. */
function ownFolder(folder: string, close: boolean): string | null {
  const why = privateFolder(folder, close);
  if (why === null) return folder;
  process.emitWarning(`Nothing that was compiled is kept or used: ${why}.`, { code: 'MAMBA2_COMPILE_CACHE' });
  return null;
}

/** The folder of everything that is cached. Where it is this user's, others lose the right to move what is in it. */
function ownRoot(): string | null {
  const root = cacheRoot();
  try {
    const { uid, mode } = fs.statSync(root);
    if (uid === process.geteuid?.() && mode & 0o022) fs.chmodSync(root, mode & 0o755);
  } catch {
    // it is made next
  }
  return ownFolder(root, false);
}

/**
 * Takes in what is kept, and sets what TensorFlow reads of it.
 * @param wanted see RuntimeOptions.compileCache; a folder in TF_XLA_FLAGS counts where nothing is said
 */
export function openCaches(wanted: boolean | string): void {
  const flags = process.env.TF_XLA_FLAGS?.split(/\s+/).filter(Boolean) ?? [];
  const given = flags.find((flag) => flag.startsWith(FLAG))?.slice(FLAG.length);
  const named = wanted || (given !== undefined && !isProcessFolder(given) ? given : false);
  const folder = named === true ? ownPrograms() : named && ownFolder(named, false);
  programs = folder ? ProgramCache.open(folder, given) : null;
  if (given === undefined && !programs) return;
  const rest = flags.filter((flag) => !flag.startsWith(FLAG));
  process.env.TF_XLA_FLAGS = [...rest, ...(programs ? [FLAG + programs.folder] : [])].join(' ');
}

/** The folder of compiled programs of this machine's kind, and beside it that of graphs. */
function ownPrograms(): string | null {
  if (!ownRoot()) return null;
  const root = path.join(cacheRoot(), 'xla');
  const folder = ownFolder(root, true) && ownFolder(compileCacheDir(root), true);
  if (!folder) return null;
  pruneCache(root, MOST_PROGRAMS, 2);
  graphs = ownFolder(path.join(cacheRoot(), 'graphs'), true);
  if (graphs) pruneCache(graphs, MOST_GRAPHS);
  return folder;
}

/**
 * Where compiled programs are kept: a folder per kind of processor, since code that XLA made for one must not run on another, per version of
 * TensorFlow, and for XLA's flags and whether float32 may be rounded to TF32: flags change what is compiled, and TensorFlow's key for it
 * does not contain them.
 */
function compileCacheDir(root: string): string {
  const kind = [
    os.cpus()[0]?.model,
    process.arch,
    TENSORFLOW_VERSION,
    ...cpuFeatures(),
    process.env.XLA_FLAGS ?? '',
    // products in whole float32 are other programs
    ...(process.env.NVIDIA_TF32_OVERRIDE === '0' ? ['float32'] : []),
  ].join('|');
  return path.join(root, createHash('sha256').update(kind).digest('hex').slice(0, 16));
}
