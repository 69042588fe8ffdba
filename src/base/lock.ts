/**
 * A lock between processes: a file that names its holder, by process and machine. Two that write one file, or set up one folder, go one
 * after the other.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { saveError } from './whole_files.js';

/** Milliseconds after which a lock that names nobody is of a process that was killed as it wrote its name. */
const NAMELESS = 5000;

export interface LockOptions {
  /** Called once when another holds the lock, with its process number. */
  onWait?: (pid: string) => void;
  /** Ends the wait, throwing its reason. */
  signal?: AbortSignal;
  /** Milliseconds between looks at a lock that another holds; default 200. */
  poll?: number;
}

/** What a lock file says; null when it is gone. */
function holderOf(lock: string): string | null {
  try {
    return fs.readFileSync(lock, 'utf8');
  } catch {
    return null;
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Whether the process that wrote a lock is gone. Only a lock of this machine can be judged. */
function isStale(lock: string, holder: string): boolean {
  if (holder === '')
    return Date.now() - (fs.statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()) > NAMELESS;
  const [pid, host = os.hostname()] = holder.split(' ');
  return host === os.hostname() && !alive(Number(pid));
}

/** Makes the lock file. @returns false when there is one @throws SaveError */
function create(lock: string): boolean {
  const holder = `${process.pid} ${os.hostname()}`;
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
    fs.rmSync(dead, { force: true });
  }
}

/** Locks of this process, which go when it exits. */
const held = new Set<string>();
const releaseAll = (): void => held.forEach(release);

function hold(lock: string): void {
  if (held.size === 0) process.once('exit', releaseAll);
  held.add(lock);
}

function release(lock: string): void {
  fs.rmSync(lock, { force: true });
  held.delete(lock);
  if (held.size === 0) process.off('exit', releaseAll);
}

/**
 * Runs `work` while holding a lock file, made with its folder; waits for another holder first, and takes over from one that died.
 * @throws SaveError when the lock cannot be written; the signal's reason; whatever `work` throws
 */
export async function withLock<T>(lock: string, work: () => Promise<T>, options: LockOptions = {}): Promise<T> {
  const { signal, poll = 200 } = options;
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
    if (isStale(lock, holder)) {
      takeAway(lock, holder);
      if (holderOf(lock) !== holder) continue;
    }
    if (!told) options.onWait?.(holder.split(' ')[0]!);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, poll));
  }
  hold(lock);
  try {
    return await work();
  } finally {
    release(lock);
  }
}
