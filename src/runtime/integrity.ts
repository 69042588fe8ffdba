/**
 * Whether a runtime folder is as set-up left it. A library that was cut ends the process (SIGBUS) when it is loaded, and its bytes are run as
 * code: that is seen before. A file is read only if its size or time differ from those noted with its hash.
 */
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { foreign } from '../base/private_folder.js';

/** What is noted of a file. */
interface Noted {
  size: number;
  mtimeMs: number;
  sha256: string;
}

/** In a runtime folder: what is noted of its files, by their paths below it. */
const NOTES = 'files.json';

/** Names of files that are run: libraries and code. */
const RUN = /(\.node|\.js|\.json|\.so(\.\d+)*)$/;

/** Links for the linker, to what has its number behind it. */
const ALIAS = /libtensorflow\w*\.so$/;

/** Models run without these, slower or with notices on stderr. */
const OPTIONAL = new Set(['host_kernels.node', 'stderr_guard.node']);

/** What is wrong with a runtime folder: sentences without their points. */
export interface Damage {
  /** What it cannot do without; empty when it can be loaded. */
  needed: string[];
  /** By the name of a file that it can do without. */
  optional: Map<string, string>;
}

const root = process.geteuid?.() === undefined ? [] : [0];

/** Files that are run, links among them, by their paths below the folder. */
function runFiles(runtime: string): string[] {
  return fs
    .readdirSync(path.join(runtime, 'node_modules'), { recursive: true, encoding: 'utf8' })
    .filter((name) => RUN.test(name) && !ALIAS.test(name))
    .map((name) => path.join('node_modules', name))
    .sort();
}

/** In pieces: libtensorflow has 800 MB. */
function sha256(file: string): string {
  const hash = createHash('sha256');
  const piece = Buffer.allocUnsafe(1 << 22);
  const handle = fs.openSync(file, 'r');
  try {
    for (let got; (got = fs.readSync(handle, piece)) > 0;) hash.update(piece.subarray(0, got));
  } finally {
    fs.closeSync(handle);
  }
  return hash.digest('hex');
}

/** The bytes that a library says it has (ELF, 64 bits): up to the end of its sections and segments. 0 where it is no such file. */
function elfSize(file: string): number {
  const handle = fs.openSync(file, 'r');
  try {
    const head = Buffer.alloc(64);
    if (fs.readSync(handle, head, 0, 64, 0) < 64 || head.toString('latin1', 0, 5) !== '\x7fELF\x02') return 0;
    const at = (offset: number): number => Number(head.readBigUInt64LE(offset));
    const [segments, sections] = [at(32), at(40)];
    const [segmentBytes, count] = [head.readUInt16LE(54), head.readUInt16LE(56)];
    let end = sections + head.readUInt16LE(58) * head.readUInt16LE(60);
    const table = Buffer.alloc(segmentBytes * count);
    if (fs.readSync(handle, table, 0, table.length, segments) < table.length) return segments + table.length;
    for (let i = 0; i < count; i++) {
      const [offset, size] = [8, 32].map((field) => Number(table.readBigUInt64LE(i * segmentBytes + field)));
      end = Math.max(end, offset! + size!);
    }
    return end;
  } finally {
    fs.closeSync(handle);
  }
}

/** What can be said of a file that nothing was noted of. */
function wrongByItself(file: string, size: number): string | null {
  if (size === 0 && file.endsWith('.js')) return 'is empty';
  if (process.platform !== 'linux' || !/\.node$|\.so(\.\d+)*$/.test(file)) return null;
  const expected = elfSize(file);
  if (expected === 0) return `is no library (it has ${size} bytes)`;
  return size < expected ? `has ${size} bytes, expected ${expected}` : null;
}

function readNotes(runtime: string): Record<string, Noted> | null {
  try {
    return JSON.parse(fs.readFileSync(path.join(runtime, NOTES), 'utf8')) as Record<string, Noted>;
  } catch {
    return null;
  }
}

function writeNotes(runtime: string, notes: Record<string, Noted>): void {
  const file = path.join(runtime, NOTES);
  const aside = `${file}.${randomBytes(6).toString('hex')}`;
  try {
    fs.writeFileSync(aside, JSON.stringify(notes));
    fs.renameSync(aside, file);
  } catch {
    // a folder that may not be written: what changed its time is read again next time
    fs.rmSync(aside, { force: true });
  }
}

/** Notes what the files of a runtime are, as set-up leaves it. The user's own libtensorflow, to which links lead, is not noted. */
export function noteFiles(runtime: string): void {
  const notes: Record<string, Noted> = {};
  for (const name of runFiles(runtime)) {
    const file = path.join(runtime, name);
    const stat = fs.lstatSync(file);
    if (stat.isFile()) notes[name] = { size: stat.size, mtimeMs: stat.mtimeMs, sha256: sha256(file) };
  }
  writeNotes(runtime, notes);
}

/** Takes from others the right to change what is in a folder. */
export function closeToWriters(folder: string): void {
  for (const entry of ['.', ...fs.readdirSync(folder, { recursive: true, encoding: 'utf8' })]) {
    const file = path.join(folder, entry);
    const { mode } = fs.lstatSync(file);
    if ((mode & fs.constants.S_IFMT) !== fs.constants.S_IFLNK && mode & 0o022) fs.chmodSync(file, mode & 0o7755);
  }
}

/**
 * Looks for damage in a runtime folder. One of an earlier version, of whose files nothing is noted, is judged by its libraries' own headers,
 * and noted then.
 * @param trusted whether the user has named the folder, so that it may be anybody's
 */
export function damageOf(runtime: string, trusted = false): Damage {
  const damage: Damage = { needed: [], optional: new Map() };
  const notes = readNotes(runtime);
  const checked: Record<string, Noted> = { ...notes };
  let changed = false;
  const judge = (name: string): string | null => {
    const [file, noted] = [path.join(runtime, name), notes?.[name]];
    const stat = fs.statSync(file, { throwIfNoEntry: false });
    if (!stat) return 'is missing';
    const others = trusted || !noted ? null : foreign(stat, root);
    if (others) return others;
    if (!noted) return stat.isFile() ? wrongByItself(file, stat.size) : null;
    if (stat.size !== noted.size) return `has ${stat.size} bytes, expected ${noted.size}`;
    if (stat.mtimeMs === noted.mtimeMs) return null;
    if (sha256(file) !== noted.sha256) return 'is not what set-up made (its hash is another)';
    checked[name] = { ...noted, mtimeMs: stat.mtimeMs };
    changed = true;
    return null;
  };
  const others = trusted ? null : foreign(fs.statSync(runtime), root);
  if (others) damage.needed.push(`it ${others}`);
  // what a link leads to has no note
  for (const name of new Set([...Object.keys(notes ?? {}), ...(notes ? linked(runtime) : runFiles(runtime))])) {
    const why = judge(name);
    if (why && OPTIONAL.has(path.basename(name))) damage.optional.set(path.basename(name), why);
    else if (why) damage.needed.push(`${path.basename(name)} ${why}`);
  }
  if (notes === null && damage.needed.length + damage.optional.size === 0 && writable(runtime)) noteFiles(runtime);
  else if (changed) writeNotes(runtime, checked);
  return damage;
}

/** Libraries that are links: the user's own. */
function linked(runtime: string): string[] {
  const lib = path.join('node_modules', '@tensorflow', 'tfjs-node-gpu', 'deps', 'lib');
  try {
    return fs
      .readdirSync(path.join(runtime, lib), { withFileTypes: true })
      .filter((entry) => entry.isSymbolicLink() && RUN.test(entry.name) && /\.so\.\d/.test(entry.name))
      .map((entry) => path.join(lib, entry.name));
  } catch {
    return [];
  }
}

function writable(folder: string): boolean {
  try {
    fs.accessSync(folder, fs.constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
