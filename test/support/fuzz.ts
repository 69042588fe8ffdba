/**
 * Runs a reader on damaged files in a process of its own, so that an abort, a hang and a leak are findings and not the end of the tests.
 *
 * A module names its readers in `fuzzTargets` and is given by its address; `fuzz_child.ts` runs it. FUZZ_SEED makes other runs. What is
 * written goes to FUZZ_FOLDER, which the child is given.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Readable } from 'node:stream';
import * as readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import { processorTime, stateOf } from './process_times.js';

/** A reader, and sound files for it. */
export interface FuzzTarget {
  /** how its files are damaged: as JSON, or as bytes */
  kind: 'json' | 'bytes';
  samples(): readonly Uint8Array[] | Promise<readonly Uint8Array[]>;
  /** Reads a damaged file, as far as a user would: what it throws must be a Mamba2Error. */
  attempt(bytes: Uint8Array): Promise<unknown>;
}

export type FuzzTargets = Readonly<Record<string, FuzzTarget>>;

export interface FuzzFault {
  /** number of the mutation: with the seed, it makes the same file again */
  index: number;
  kind: 'abort' | 'hang' | 'foreign error';
  detail: string;
}

export interface FuzzReport {
  accepted: number;
  refused: number;
  faults: FuzzFault[];
  /** milliseconds that the process computed for the slowest file, and its number */
  slowest: { index: number; ms: number };
  /** most bytes that a process held */
  memory: number;
}

export interface FuzzOptions {
  count: number;
  seed?: number;
  /** number of the first mutation. Default 0 */
  first?: number;
  /** milliseconds after which a file is a hang: of the process's own time while it wants to run, of the clock while it sleeps. Default 5000 */
  limit?: number;
  /** faults after which no more are looked for. Default 20 */
  faults?: number;
}

/** What the child writes, a line each. */
export type FuzzLine =
  | { kinds: string[] }
  | { begin: number; how: string }
  | { end: number; outcome: 'accepted' | 'refused'; ms: number }
  | { end: number; outcome: 'foreign error'; detail: string; ms: number }
  | { done: true; memory: number };

const CHILD = fileURLToPath(new URL('fuzz_child.ts', import.meta.url));

/** What the child is asked for, a line each. */
export interface FuzzJob {
  target: string;
  seed: number;
  first: number;
  end: number;
}

/** Runs mutations first … count of a module's target. */
export async function fuzz(module: string | URL, target: string, options: FuzzOptions): Promise<FuzzReport> {
  const { count, seed = Number(process.env.FUZZ_SEED ?? 1), first = 0, limit = 5000, faults = 20 } = options;
  const report: FuzzReport = { accepted: 0, refused: 0, faults: [], slowest: { index: -1, ms: 0 }, memory: 0 };
  const end = first + count;
  for (let next = first; next < end && report.faults.length < faults;) {
    const child = takeChild(String(module));
    next = await runJob(child, { target, seed, first: next, end }, limit, report);
  }
  return report;
}

/** The names of a module's targets, as so many processes start that run them. */
export async function fuzzKinds(module: string | URL, processes = 1): Promise<string[]> {
  const started = Array.from({ length: processes }, () => takeChild(String(module)));
  idle.push(...started);
  return started[0]!.kinds;
}

/** Ends processes that wait for another job. */
export function endFuzz(module: string | URL): void {
  for (const child of idle.filter((each) => each.module === String(module))) {
    idle.splice(idle.indexOf(child), 1);
    child.process.stdin!.end();
  }
}

/** A process that loaded a module, and the lines that it writes. */
interface FuzzChild {
  module: string;
  process: ChildProcess;
  lines: readline.Interface;
  kinds: Promise<string[]>;
  errors: string;
}

/** Processes that wait for the next job: to start one takes longer than most jobs do. They end with this process, whose pipe they read. */
const idle: FuzzChild[] = [];

let made: string | null = null;
/** A folder that lies in memory where there is room for it: to write a file anew takes the system half a millisecond on a disk. */
function folder(): string {
  if (made === null) {
    const room = (at: string): number => {
      try {
        const { bavail, bsize } = fs.statfsSync(at);
        return bavail * bsize;
      } catch {
        return 0;
      }
    };
    made = fs.mkdtempSync(path.join(room('/dev/shm') > 2 ** 25 ? '/dev/shm' : os.tmpdir(), 'fuzz-'));
    process.on('exit', () => fs.rmSync(made!, { recursive: true, force: true }));
  }
  return made;
}

function takeChild(module: string): FuzzChild {
  const waiting = idle.findIndex((child) => child.module === module);
  if (waiting >= 0) return idle.splice(waiting, 1)[0]!;
  const child = spawn(process.execPath, ['--import', 'tsx', '--no-warnings', CHILD, module], {
    stdio: ['pipe', 'ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '', FUZZ_FOLDER: folder() },
  });
  const lines = readline.createInterface({ input: child.stdio[3] as Readable });
  const started: FuzzChild = {
    ...{ module, process: child, lines, errors: '' },
    kinds: new Promise((resolve, reject) => {
      lines.once('line', (text) => resolve((JSON.parse(text) as { kinds: string[] }).kinds));
      child.once('close', () =>
        reject(new Error(`the process that runs damaged files did not start:\n${started.errors}`)),
      );
    }),
  };
  started.kinds.catch(() => undefined); // who waits for a job of it is told
  child.stdin!.on('error', () => undefined); // it has died, which is told where it closes
  child
    .stderr!.setEncoding('utf8')
    .on('data', (text: string) => (started.errors = (started.errors + text).slice(-2000)));
  return started;
}

/** Lets the tests' process end, or not, while a child waits. */
function hold(child: FuzzChild, held: boolean): void {
  const handles = [child.process, ...child.process.stdio] as unknown as ({ ref(): void; unref(): void } | null)[];
  for (const handle of handles) held ? handle?.ref() : handle?.unref();
}

/** Times that the clock of a file is looked at within its limit. */
const LOOKS = 10;

/** Milliseconds that a process may take between files: for its sound ones, most of all. */
const BETWEEN = 60_000;

/**
 * Calls back when a file takes too long. Only its own time counts: on a busy machine a process waits for its turn, within ten times the limit,
 * and nothing counts while someone has stopped it or us.
 * @param current number of the file; null between two
 */
function watch(child: ChildProcess, limit: number, current: () => number | null, hangs: () => void): NodeJS.Timeout {
  let seen: number | null = null;
  let from = 0;
  let looks = 0;
  return setInterval(() => {
    const state = stateOf(child.pid);
    if (state === 'T') return;
    const index = current();
    if (index !== seen) {
      [seen, looks, from] = [index, 0, processorTime(child.pid)];
      return;
    }
    looks++;
    if (index === null) {
      if ((looks * limit) / LOOKS >= BETWEEN) hangs();
      return;
    }
    if (looks % LOOKS !== 0) return;
    if (looks < 10 * LOOKS && processorTime(child.pid) - from < limit && state === 'R') return;
    hangs();
  }, limit / LOOKS);
}

/** Runs a job until it is done, or the child dies or hangs. @returns the number after the last file that it began */
async function runJob(child: FuzzChild, job: FuzzJob, limit: number, report: FuzzReport): Promise<number> {
  const { process: running } = child;
  let current: { index: number; how: string } | null = null;
  let next = job.first;
  let hung = false;
  hold(child, true);
  await child.kinds;
  const index = (): number | null => current?.index ?? null;
  const clock = watch(running, limit, index, () => {
    hung = true;
    running.kill('SIGKILL');
  });
  running.stdin!.write(`${JSON.stringify(job)}\n`);
  const ended = await new Promise<'done' | [number | null, string | null]>((resolve, reject) => {
    let end: [number | null, string | null] | null = null;
    let closed = false; // all lines come before the end is judged
    const both = (): void => void (end && closed && resolve(end));
    child.lines.on('line', (text) => {
      const line = JSON.parse(text) as FuzzLine;
      if ('begin' in line) {
        current = { index: line.begin, how: line.how };
        next = line.begin + 1;
      } else if ('end' in line) {
        const how = current?.how;
        current = null;
        if (line.ms > report.slowest.ms) report.slowest = { index: line.end, ms: line.ms };
        if (line.outcome === 'foreign error') {
          report.faults.push({ index: line.end, kind: line.outcome, detail: `${how}: ${line.detail}` });
        } else report[line.outcome]++;
      } else if ('done' in line) {
        report.memory = Math.max(report.memory, line.memory);
        resolve('done');
      }
    });
    child.lines.once('close', () => ((closed = true), both()));
    running.once('error', reject);
    running.once('close', (...codes) => ((end = codes), both()));
  });
  clearInterval(clock);
  child.lines.removeAllListeners();
  running.removeAllListeners();
  if (ended === 'done') {
    hold(child, false);
    idle.push(child);
    return job.end;
  }
  const [code, signal] = ended;
  const last = current as { index: number; how: string } | null;
  if (last === null)
    throw new Error(`the process that runs damaged files ended with ${code ?? signal}:\n${child.errors}`);
  const detail = `${last.how}: ${hung ? `over ${limit} ms` : `${code ?? signal} ${child.errors.slice(-500)}`}`;
  report.faults.push({ index: last.index, kind: hung ? 'hang' : 'abort', detail });
  return next;
}
