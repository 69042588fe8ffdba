/** What Linux says of the memory of a process. What getrusage says begins with what the parent held when it started the process. */
import { readFileSync } from 'node:fs';

/** Bytes: the most that was resident, what is, and of that what belongs to no file, and what to files. */
type MemoryField = 'VmHWM' | 'VmRSS' | 'RssAnon' | 'RssFile';

/** Bytes that a process holds; null where that is not known: the process has ended, or this is no Linux. */
export function memoryOf(field: MemoryField, pid: number | 'self' = 'self'): number | null {
  try {
    const kilobytes = new RegExp(`^${field}:\\s*(\\d+) kB$`, 'm').exec(
      readFileSync(`/proc/${pid}/status`, 'utf8'),
    )?.[1];
    return kilobytes === undefined ? null : 1024 * Number(kilobytes);
  } catch {
    return null;
  }
}
