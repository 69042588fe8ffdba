/** One training run at a time in a folder: two would delete each other's snapshots and mix their logs. */
import { AsyncLocalStorage } from 'node:async_hooks';
import * as path from 'node:path';
import { TrainingError } from '../base/errors.js';
import { withLock } from '../base/lock.js';

/** Within the folder; removed when the run ends, and taken over from a run that was killed. */
const LOCK = '.training.lock';

/** Locks held by what is under way: work that holds one may begin more in the same folder. */
const mine = new AsyncLocalStorage<readonly string[]>();

/**
 * Runs `work` while no other training runs in this folder, which is made if need be.
 * @throws TrainingError saying which process trains there
 */
export function aloneIn<T>(folder: string, work: () => Promise<T>): Promise<T> {
  const lock = path.resolve(folder, LOCK);
  const held = mine.getStore() ?? [];
  if (held.includes(lock)) return work();
  const onWait = (pid: string, who: string): never => {
    throw new TrainingError(
      `${folder}: ${pid === String(process.pid) ? 'this process' : who} trains into this folder already, and its snapshots would be lost. Wait for it, end it, or choose another output_dir.`,
      { output_dir: folder, pid: Number(pid), lock },
    );
  };
  return withLock(lock, () => mine.run([...held, lock], work), { onWait });
}
