/** What Linux says of a process: the time it has computed, and whether it runs or sleeps. Elsewhere nothing is known. */
import { readFileSync } from 'node:fs';

/** Fields of /proc/PID/stat from the state on: a name in brackets stands before it, which may hold anything. */
function fields(pid: number | undefined): readonly string[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
}

/** R: runs or waits for its turn. S: sleeps. T: was stopped by a signal. Null where that is not known. */
export const stateOf = (pid: number | undefined): string | null => fields(pid)[0] ?? null;

/** Milliseconds of all threads, the system's work for them included. Linux counts in hundredths of a second. */
export function processorTime(pid: number | undefined): number {
  const stat = fields(pid);
  return 10 * (Number(stat[11] ?? 0) + Number(stat[12] ?? 0));
}
