/**
 * Compiled programs kept for the next process. TensorFlow reads and writes a folder of this process alone: links to the kept files whose
 * checksums are right. What it adds there is kept with a checksum after each first run. So no damaged or planted file is run as code, and a
 * full disk costs no more than what would have been kept.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { DeviceError } from '../base/errors.js';
import { isAlive } from '../base/processes.js';
import { isProgram, isSum, isWhole, keepProgram, removeProgram } from './kept_program.js';
import { foreign } from '../base/private_folder.js';
import { temporaryFolder, temporaryRoot } from './temporary.js';

/** Names of the folders that processes have, with the process in them. */
const PREFIX = 'tfjs-mamba2-programs-';
/** A folder of a process that is gone is removed when it is as old: one of another container may have any process number. */
const DAY = 24 * 3600 * 1000;

const MINE = (): string => `${PREFIX}${process.pid}-`;

/** Whether this is such a folder, of this process or of another. */
export const isProcessFolder = (folder: string): boolean => path.basename(folder).startsWith(PREFIX);

/** Removes the folders of processes that were killed. */
function sweep(): void {
  const root = temporaryRoot();
  for (const name of fs.readdirSync(root)) {
    const pid = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    const folder = path.join(root, name);
    const stat = fs.lstatSync(folder, { throwIfNoEntry: false });
    if (!stat || stat.uid !== process.geteuid?.() || Date.now() - stat.mtimeMs < DAY) continue;
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** Sees that the folder of this process is there and is its own. @returns why it is not, or null */
function ownFolder(folder: string): string | null {
  const stat = fs.lstatSync(folder, { throwIfNoEntry: false });
  if (!stat) fs.mkdirSync(folder, { mode: 0o700 });
  else if (!stat.isDirectory()) return `${folder} is no folder`;
  const why = stat && foreign(stat);
  return why ? `${folder} ${why}` : null;
}

function say(line: string): void {
  process.emitWarning(line, { code: 'MAMBA2_COMPILE_CACHE' });
}

export class ProgramCache {
  /** Whether anything more may be kept. */
  private keeps = true;

  private constructor(
    private readonly kept: string,
    /** What TensorFlow is given. */
    readonly folder: string,
  ) {}

  /**
   * Checks what a folder keeps; what is damaged, or has no checksum, is removed.
   * @param kept a folder that only this user writes
   * @param shared the folder that TensorFlow in this process was given by another thread already
   * @returns null, and one line that says so, when no folder for the process can be made
   */
  static open(kept: string, shared?: string): ProgramCache | null {
    try {
      const there = shared !== undefined && path.basename(shared).startsWith(MINE()) && fs.existsSync(shared);
      if (!there) sweep();
      const folder = there ? shared : temporaryFolder(MINE());
      if (/\s/.test(folder)) throw new Error(`the temporary folder ${os.tmpdir()} has a space in its path`);
      const cache = new ProgramCache(kept, folder);
      if (!there) cache.takeIn();
      // TensorFlow goes on when a worker thread ends
      if (isMainThread) process.once('exit', () => cache.close());
      return cache;
    } catch (error) {
      say(`Compiled programs are not kept: ${(error as Error).message}.`);
      return null;
    }
  }

  private takeIn(): void {
    for (const name of fs.readdirSync(this.kept)) {
      const file = path.join(this.kept, name);
      if (isSum(name) && !fs.existsSync(file.slice(0, -4))) fs.rmSync(file, { force: true });
      if (!isProgram(name)) continue;
      if (isWhole(file)) fs.symlinkSync(file, path.join(this.folder, name));
      else removeProgram(file);
    }
  }

  /**
   * Before TensorFlow may read: takes out what has been damaged since it was last looked at.
   * @throws DeviceError when the folder of this process is another's: one that tidies temporary folders may have removed it
   */
  check(): void {
    const why = ownFolder(this.folder);
    if (why) throw new DeviceError(`Programs are not compiled: ${why}. Remove it.`, { folder: this.folder });
    for (const entry of this.entries()) {
      if (!entry.isSymbolicLink()) continue;
      const file = path.join(this.kept, entry.name);
      if (isWhole(file)) continue;
      fs.rmSync(path.join(this.folder, entry.name), { force: true });
      removeProgram(file);
    }
  }

  /** Keeps what TensorFlow has written since. A disk that takes nothing only means that nothing is kept, which is said once. */
  keep(): void {
    if (!this.keeps) return;
    for (const entry of this.entries()) {
      if (!entry.isFile() || !isProgram(entry.name)) continue;
      const [mine, file] = [path.join(this.folder, entry.name), path.join(this.kept, entry.name)];
      try {
        keepProgram(fs.readFileSync(mine), file);
        fs.symlinkSync(file, `${mine}.link`);
        fs.renameSync(`${mine}.link`, mine);
      } catch (error) {
        this.keeps = false;
        say(`Compiled programs are not kept in ${this.kept} from now on: ${(error as Error).message}.`);
        return;
      }
    }
  }

  private entries(): fs.Dirent[] {
    try {
      return fs.readdirSync(this.folder, { withFileTypes: true });
    } catch {
      return []; // somebody has cleared the temporary folder: TensorFlow makes it anew
    }
  }

  private close(): void {
    this.keep();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}
