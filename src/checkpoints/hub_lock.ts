/**
 * One download of a file at a time, also among processes: the holder's process is named in a lock file. Two writers of one
 * partial file could change it after it was checked.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import { saveError } from '../base/files.js';

/** Is the process that wrote a lock gone? Only a lock of this machine can be judged. */
function isStale(lock: string): boolean {
  let text: string;
  try {
    text = fs.readFileSync(lock, 'utf8');
  } catch {
    return false; // released just now
  }
  const [pid, host] = text.split(' ');
  // the holder writes its name in the same moment; a lock that stays empty is of one that was killed in it
  if (text === '') return Date.now() - (fs.statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()) > 5000;
  if (host !== os.hostname()) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/**
 * Runs `work` while holding a lock file; waits for another holder.
 * @param poll milliseconds between looks at a lock that another holds
 * @throws SaveError when the lock cannot be written; whatever `work` throws
 */
export async function withLock<T>(lock: string, work: () => Promise<T>, signal?: AbortSignal, poll = 200): Promise<T> {
  while (true) {
    signal?.throwIfAborted();
    try {
      await fs.promises.writeFile(lock, `${process.pid} ${os.hostname()}`, { flag: 'wx' });
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw saveError(lock, error);
    }
    if (isStale(lock)) await fs.promises.rm(lock, { force: true });
    else await new Promise((resolve) => setTimeout(resolve, poll));
  }
  try {
    return await work();
  } finally {
    await fs.promises.rm(lock, { force: true });
  }
}
