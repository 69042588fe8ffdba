/**
 * Writing files and folders so that they are either whole or not there: aside first, then renamed.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { createHash, randomBytes } from 'node:crypto';
import { SaveError } from './errors.js';
import { hasEnded, type ProcessName, thisProcess } from './processes.js';
import { unfinishedUntil } from './stop_signals.js';

/** One write call hands over at most this much: the operating system's own limit is 2 GiB. */
const SLICE = 2 ** 30;

/** A host as a file's name has it: names of hosts may be long. */
const hostMark = (host: string): string => createHash('sha256').update(host).digest('hex').slice(0, 8);

/** Names of files that are being written: the file's own, and whose it is. */
const ASIDE = /^\..*\.(\d{1,10})-(\d+|-)-([0-9a-f]{8})-[0-9a-f]{12}\.part$/;

/** Where a file is written before it has its name. Names may have 255 bytes: a long one is cut. */
function asideOf(file: string): string {
  const { pid, host, begin } = thisProcess();
  const name = [...path.basename(file)].slice(0, 40).join('');
  const mark = `${pid}-${begin}-${hostMark(host)}-${randomBytes(6).toString('hex')}`;
  return path.join(path.dirname(file), `.${name}.${mark}.part`);
}

/** Removes what processes of this machine that are gone (killed, or out of memory) left half written in a folder. */
async function removeLeftovers(folder: string): Promise<void> {
  const names = await fs.promises.readdir(folder).catch((): string[] => []);
  const host = os.hostname();
  const own = hostMark(host);
  for (const name of names) {
    const [, pid, begin, mark] = ASIDE.exec(name) ?? [];
    if (mark !== own) continue;
    const writer: ProcessName = { pid: Number(pid), host, begin };
    // what cannot be removed is no reason not to write
    if (hasEnded(writer)) await fs.promises.rm(path.join(folder, name), { force: true }).catch(() => undefined);
  }
}

/**
 * A file written aside, in the folder where it will be, and renamed when whole. Until `commit()` nothing has the final
 * name; after `abort()` nothing is left. What a process that was killed leaves goes when the next file is written there.
 */
export class AtomicFile {
  /** bytes written so far */
  written = 0;
  private readonly aside: string;
  private handle: fs.promises.FileHandle | null;
  private readonly settled: () => void;

  private constructor(
    readonly path: string,
    aside: string,
    handle: fs.promises.FileHandle,
  ) {
    this.aside = aside;
    this.handle = handle;
    this.settled = unfinishedUntil(aside);
  }

  /** Removes what killed processes left in the folder, too. @throws SaveError when the folder cannot be written */
  static async create(file: string): Promise<AtomicFile> {
    const aside = asideOf(file);
    await removeLeftovers(path.dirname(file));
    try {
      return new AtomicFile(file, aside, await fs.promises.open(aside, 'wx'));
    } catch (error) {
      throw saveError(file, error);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (!this.handle) throw new SaveError(`${this.path} was already closed.`, { file: this.path });
    try {
      for (let done = 0; done < bytes.byteLength;) {
        const length = Math.min(SLICE, bytes.byteLength - done);
        const { bytesWritten } = await this.handle.write(bytes, done, length, null);
        done += bytesWritten;
        this.written += bytesWritten;
      }
    } catch (error) {
      throw saveError(this.path, error);
    }
  }

  /** Flushes and closes; the file stays aside. */
  async finish(): Promise<void> {
    const handle = this.handle;
    this.handle = null;
    if (!handle) return;
    try {
      await handle.sync();
    } catch (error) {
      throw saveError(this.path, error);
    } finally {
      await handle.close();
    }
  }

  /** Gives the file its name (default: the one of create()), in the same folder. */
  async commit(file: string = this.path): Promise<void> {
    await this.finish();
    try {
      await fs.promises.rename(this.aside, file);
      this.settled();
    } catch (error) {
      throw saveError(file, error);
    }
  }

  /** Removes what was written. Safe at any time before commit(). */
  async abort(): Promise<void> {
    const handle = this.handle;
    this.handle = null;
    await handle?.close().catch(() => undefined);
    await fs.promises.rm(this.aside, { force: true });
    this.settled();
  }
}

/** Writes a file aside and keeps it there. @throws SaveError; nothing is left */
export async function writeAside(file: string, data: string | Uint8Array): Promise<AtomicFile> {
  const out = await AtomicFile.create(file);
  try {
    await out.write(typeof data === 'string' ? new TextEncoder().encode(data) : data);
    await out.finish();
    return out;
  } catch (error) {
    await out.abort();
    throw error;
  }
}

/**
 * Files that get their names together. `write` puts them into its list as it writes them aside; when it ends, all are renamed, and when it
 * fails, none is and nothing is left.
 */
export async function writeTogether(write: (aside: AtomicFile[]) => Promise<void>): Promise<void> {
  const aside: AtomicFile[] = [];
  try {
    await write(aside);
    for (const file of aside) await file.commit();
  } catch (error) {
    await Promise.all(aside.map((file) => file.abort()));
    throw error;
  }
}

/** Writes a whole file aside and renames it. @throws SaveError; nothing half written is left */
export function writeFileAtomic(file: string, data: string | Uint8Array): Promise<void> {
  return writeTogether(async (aside) => void aside.push(await writeAside(file, data)));
}

/**
 * Gives a folder that is whole its name. One that has the name is moved away first and deleted afterwards, so that a crash leaves one of the
 * two whole, and a program that has the old one open goes on; where renaming fails, the old one has its name again.
 * @param old where the old one is meanwhile, in the same folder
 */
export async function replaceFolder(aside: string, folder: string, old: string): Promise<void> {
  await fs.promises.rm(old, { recursive: true, force: true });
  const replaces = fs.existsSync(folder);
  if (replaces) await fs.promises.rename(folder, old);
  try {
    await fs.promises.rename(aside, folder);
  } catch (error) {
    if (replaces) await fs.promises.rename(old, folder);
    throw error;
  }
  const gone = unfinishedUntil(old);
  try {
    await syncFolder(path.dirname(folder));
    await fs.promises.rm(old, { recursive: true, force: true });
  } finally {
    gone();
  }
}

/** Renames made so far survive a power cut, where the file system can be asked for it. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.promises.open(folder, 'r').catch(() => null);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

/** The SaveError of a failed write, with advice for the common causes. */
export function saveError(file: string, error: unknown): SaveError {
  if (error instanceof SaveError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const advice =
    code === 'ENOSPC'
      ? 'The disk is full: free some space or choose another folder.'
      : code === 'EACCES' || code === 'EPERM' || code === 'EROFS'
        ? 'The folder may not be written: check its permissions.'
        : code === 'ENOENT' || code === 'ENOTDIR'
          ? 'The folder does not exist.'
          : message;
  return new SaveError(
    `Could not write ${file}. ${advice} Nothing was left half written.`,
    { file, code },
    {
      cause: error,
    },
  );
}
