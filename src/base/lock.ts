/**
 * A lock between processes: a file that names its holder, by process, machine and when it began. Two that write one file, or set up one folder, go one
 * after the other.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { hasEnded, type ProcessName, thisProcess } from './processes.js';
import { plain } from './quote.js';
import { atEnd } from './stop_signals.js';
import { saveError } from './whole_files.js';

/** Milliseconds after which a lock that names nobody is of a process that was killed as it wrote its name. */
const NAMELESS = 5000;
/** Milliseconds between a holder's signs of life, and those of silence after which a holder that cannot be looked at is gone. */
const PULSE = 15_000;
const SILENT = 600_000;

export interface LockOptions {
  /**
   * Called once when another holds the lock, with its process number and who it is in words: 'process 12', 'process 12 on HOST'. What it
   * throws ends the wait.
   */
  onWait?: (pid: string, who: string) => void;
  /** Ends the wait, throwing its reason. */
  signal?: AbortSignal;
  /** Milliseconds between looks at a lock that another holds; default 200. */
  poll?: number;
}

/** What a lock file says; null when it is gone, empty when it is none that this package writes. */
function holderOf(lock: string): string | null {
  const stat = fs.lstatSync(lock, { throwIfNoEntry: false });
  if (!stat) return null;
  if (!stat.isFile() || stat.size > 1000) return ''; // a pipe would never be read to its end
  try {
    return fs.readFileSync(lock, 'utf8');
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? null : '';
  }
}

/** A lock's text, taken apart. Earlier versions wrote no beginning, and the first one no host. */
function parse(text: string): ProcessName | null {
  const [, pid, host = os.hostname(), begin] = /^(\d{1,10})(?: (\S+))?(?: (\d+|-))?$/.exec(text) ?? [];
  return Number(pid) > 0 ? { pid: Number(pid), host, begin } : null;
}

/** A lock as it is seen while another holds it. */
class Watch {
  private touched = -1;
  private since = 0;

  constructor(private readonly lock: string) {}

  /** Milliseconds since the holder's last sign of life; by two clocks, since that of another machine may be wrong. */
  private silence(): number {
    const touched = fs.lstatSync(this.lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (touched !== this.touched) [this.touched, this.since] = [touched, performance.now()];
    return Math.max(Date.now() - touched, performance.now() - this.since);
  }

  /** Whether the process that wrote the lock is gone. */
  isStale(text: string): boolean {
    const silence = this.silence();
    const holder = parse(text);
    if (!holder) return silence > NAMELESS;
    const { pid, host, begin } = holder;
    const first = pid === 1 && begin === undefined && host === os.hostname();
    return hasEnded(holder) ?? silence > (first ? NAMELESS : SILENT);
  }
}

/** Who holds a lock, in words. */
function inWords(text: string): string {
  const holder = parse(text);
  if (!holder) return 'a process that did not say who it is';
  return `process ${holder.pid}${holder.host === os.hostname() ? '' : ` on ${plain(holder.host)}`}`;
}

/** Makes the lock file. @returns false when there is one @throws SaveError */
function create(lock: string): boolean {
  const { pid, host, begin } = thisProcess();
  const holder = `${pid} ${host} ${begin}`;
  const mine = `${lock}.${randomBytes(6).toString('hex')}`;
  try {
    // written aside and linked into place: the lock appears together with its holder's name
    fs.writeFileSync(mine, holder);
    try {
      fs.linkSync(mine, lock);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      fs.writeFileSync(lock, holder, { flag: 'wx' }); // a file system without links
    } finally {
      fs.rmSync(mine, { force: true });
    }
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw saveError(lock, error);
  }
}

/** Removes the lock of a holder that is gone. */
function takeAway(lock: string, holder: string): void {
  // Renaming is atomic: of several processes that see the dead holder, one wins the right to remove its lock.
  const dead = `${lock}.${randomBytes(6).toString('hex')}`;
  try {
    fs.renameSync(lock, dead);
    // Someone faster may have removed the dead lock and taken a new one: that one goes back.
    if (holderOf(dead) !== holder) fs.linkSync(dead, lock);
  } catch {
    // another process was faster
  } finally {
    fs.rmSync(dead, { force: true, recursive: true });
  }
}

/** Removes a lock of this process. */
function release(lock: string): void {
  // one that was taken for dead has no lock any more
  if (parse(holderOf(lock) ?? '')?.pid === process.pid) fs.rmSync(lock, { force: true });
}

/**
 * Runs `work` while holding a lock file, made with its folder; waits for another holder first, and takes over from one that died.
 * @throws SaveError when the lock cannot be written; the signal's reason; whatever `work` throws
 */
export async function withLock<T>(lock: string, work: () => Promise<T>, options: LockOptions = {}): Promise<T> {
  const { signal, poll = 200 } = options;
  const watch = new Watch(lock);
  let told = false;
  try {
    fs.mkdirSync(path.dirname(lock), { recursive: true });
  } catch (error) {
    throw saveError(lock, error);
  }
  while (true) {
    signal?.throwIfAborted();
    if (create(lock)) break;
    const holder = holderOf(lock);
    if (holder === null) continue; // released in this very moment
    if (watch.isStale(holder)) {
      takeAway(lock, holder);
      if (holderOf(lock) !== holder) continue;
    }
    if (!told) options.onWait?.(plain(holder.split(' ')[0]!), inWords(holder));
    told = true;
    await new Promise((resolve) => setTimeout(resolve, poll));
  }
  const released = atEnd(() => release(lock));
  const pulse = setInterval(() => fs.utimes(lock, new Date(), new Date(), () => undefined), PULSE).unref();
  try {
    return await work();
  } finally {
    clearInterval(pulse);
    release(lock);
    released();
  }
}
