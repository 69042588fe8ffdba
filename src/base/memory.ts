/** How much memory the host has for this process, and the check before something large of known size is made. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { DeviceError } from './errors.js';

/** Bytes of memory that this process may use at most: the machine's, or what a container allows. */
export function totalMemory(): number {
  const limit = process.constrainedMemory?.() ?? 0;
  return limit > 0 ? Math.min(limit, os.totalmem()) : os.totalmem();
}

/**
 * Bytes of memory that are free for this process: of the machine, and within what a container allows. What files are kept in memory
 * counts as free, since it makes way.
 */
export function freeMemory(): number {
  const limit = process.constrainedMemory?.() ?? 0;
  const free = os.freemem();
  return limit > 0 && limit < os.totalmem() ? Math.min(free, limit - used()) : free;
}

/** Bytes that the container of this process holds, kept files not counted; those of this process alone where it does not say. */
function used(): number {
  try {
    const group = /^0::(.*)$/m.exec(fs.readFileSync('/proc/self/cgroup', 'utf8'))![1]!;
    const folder = [group, '/']
      .map((name) => path.join('/sys/fs/cgroup', name))
      .find((one) => fs.existsSync(path.join(one, 'memory.current')))!;
    const current = Number(fs.readFileSync(path.join(folder, 'memory.current'), 'utf8'));
    const stat = fs.readFileSync(path.join(folder, 'memory.stat'), 'utf8');
    const files = Number(/^inactive_file (\d+)$/m.exec(stat)![1]) + Number(/^active_file (\d+)$/m.exec(stat)![1]);
    if (Number.isFinite(current - files)) return current - files;
  } catch {
    // an older kernel, or no Linux
  }
  return process.memoryUsage.rss();
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(bytes < 2 ** 30 ? 3 : 1)} GiB`;

/** What is left to everything else. */
const RESERVE = 2 ** 26;

/**
 * Refuses work that the host has not enough memory for, before anything of it is made: a machine that runs out ends the process
 * without a word.
 *
 * @param bytes that the work will take at least
 * @param what it is, such as `generate: 5000 rows`
 * @param advice what makes it smaller, in a sentence
 * @throws DeviceError saying how much is needed, how much there is, and what to do
 */
export function checkMemory(bytes: number, what: string, advice: string): void {
  if (bytes <= RESERVE) return;
  const free = freeMemory();
  if (bytes + RESERVE <= free) return;
  throw new DeviceError(
    `${what} would take at least ${gib(bytes)} of memory, and ${gib(Math.max(0, free))} are free (of ${gib(totalMemory())}). ${advice}`,
    { needed: bytes, free: Math.max(0, free), total: totalMemory() },
  );
}
