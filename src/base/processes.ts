/** Other processes of this machine, and who wrote a file. */
import * as fs from 'node:fs';
import * as os from 'node:os';

/** Whether there is a process of this number, be it another user's. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** When a process began, in ticks since the machine did: numbers of processes are given again. Null where that cannot be seen. */
function beginOf(pid: number): string | null {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    // the name, in brackets, may hold anything
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

/** A process, as it says in a file who it is. */
export interface ProcessName {
  pid: number;
  host: string;
  /** '-' where it could not be seen; undefined in what earlier versions wrote */
  begin: string | undefined;
}

/** This process. */
export function thisProcess(): ProcessName {
  return { pid: process.pid, host: os.hostname(), begin: beginOf(process.pid) ?? '-' };
}

/** Whether a process has ended; null where that cannot be told: it is of another machine, or its number may have been given again. */
export function hasEnded({ pid, host, begin }: ProcessName): boolean | null {
  if (host !== os.hostname()) return null;
  if (!isAlive(pid)) return true;
  const now = begin === undefined || begin === '-' ? null : beginOf(pid);
  return now === null ? null : now !== begin;
}
