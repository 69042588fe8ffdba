/** A lock between processes: a file that names its holder. */
import * as fs from 'node:fs';
import * as path from 'node:path';

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** True when the lock was taken; false when a living process holds it. A lock whose holder died is taken over. */
function tryLock(file: string): boolean {
  // Written aside and linked into place: the lock appears together with its holder's number.
  const mine = `${file}.${process.pid}`;
  fs.writeFileSync(mine, String(process.pid));
  try {
    fs.linkSync(mine, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    fs.rmSync(mine, { force: true });
  }
  let holder: string;
  try {
    holder = fs.readFileSync(file, 'utf8');
  } catch {
    return false; // released in this very moment: the next try gets it
  }
  if (alive(Number(holder))) return false;
  // Renaming is atomic: of several processes that see the dead holder, one wins the right to remove its lock.
  const dead = `${file}.dead-${process.pid}`;
  try {
    fs.renameSync(file, dead);
    // Someone faster may have removed the dead lock and taken a new one: that one goes back.
    if (fs.readFileSync(dead, 'utf8') !== holder) fs.linkSync(dead, file);
  } catch {
    // another process was faster
  } finally {
    fs.rmSync(dead, { force: true });
  }
  return false;
}

/**
 * Runs `work` while holding the lock file, waiting for another holder first.
 *
 * @param onWait called once when another process holds the lock, with its process id
 */
export async function withLock<T>(file: string, work: () => Promise<T>, onWait?: (pid: string) => void): Promise<T> {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  let told = false;
  while (!tryLock(file)) {
    if (!told && onWait && fs.existsSync(file)) {
      told = true;
      onWait(fs.readFileSync(file, { encoding: 'utf8', flag: 'r' }));
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const release = () => fs.rmSync(file, { force: true });
  process.once('exit', release);
  try {
    return await work();
  } finally {
    process.off('exit', release);
    release();
  }
}
