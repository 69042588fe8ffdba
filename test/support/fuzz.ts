/**
 * Runs a reader on damaged files in a process of its own, so that an abort, a hang and a leak are findings and not the end of the tests.
 *
 * A module names its readers in `fuzzTargets` and is given by its address; `fuzz_child.ts` runs it. FUZZ_SEED makes other runs.
 */
import { type ChildProcess, spawn } from 'node:child_process';
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
  /** milliseconds of the slowest file, and its number */
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
  | { begin: number; how: string }
  | { end: number; outcome: 'accepted' | 'refused'; ms: number; memory: number }
  | { end: number; outcome: 'foreign error'; detail: string; ms: number; memory: number }
  | { done: true };

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

/** A process that loaded a module, and the lines that it writes. */
interface FuzzChild {
  module: string;
  process: ChildProcess;
  lines: readline.Interface;
  errors: string;
}

/** Processes that wait for the next job: to start one takes longer than most jobs do. They end with this process, whose pipe they read. */
const idle: FuzzChild[] = [];

function takeChild(module: string): FuzzChild {
  const waiting = idle.findIndex((child) => child.module === module);
  if (waiting >= 0) return idle.splice(waiting, 1)[0]!;
  const child = spawn(process.execPath, ['--import', 'tsx', '--no-warnings', CHILD, module], {
    stdio: ['pipe', 'ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  const made: FuzzChild = {
    module,
    process: child,
    lines: readline.createInterface({ input: child.stdio[3] as Readable }),
    errors: '',
  };
  child.stdin!.on('error', () => undefined); // it has died, which is told where it closes
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (made.errors = (made.errors + text).slice(-2000)));
  return made;
}

/** Lets the tests' process end, or not, while a child waits. */
function hold(child: FuzzChild, held: boolean): void {
  const handles = [child.process, ...child.process.stdio] as unknown as ({ ref(): void; unref(): void } | null)[];
  for (const handle of handles) held ? handle?.ref() : handle?.unref();
}

/** Runs a job until it is done, or the child dies or hangs. @returns the number after the last file that it began */
async function runJob(child: FuzzChild, job: FuzzJob, limit: number, report: FuzzReport): Promise<number> {
  const { process: running } = child;
  let current: { index: number; how: string } | null = null;
  let next = job.first;
  let hung = false;
  hold(child, true);
  // the start of the process is no file's fault
  let clock = setTimeout(() => running.kill('SIGKILL'), 60_000);
  const rearm = (ms: number, waits = 0, from = processorTime(running.pid)): void => {
    clearTimeout(clock);
    clock = setTimeout(() => {
      // on a busy machine a process waits for its turn: what counts is what it computed, within ten times the limit
      if (waits < 10 && processorTime(running.pid) - from < ms && 'RT'.includes(stateOf(running.pid) ?? 'S'))
        return rearm(ms, waits + 1, from);
      hung = true;
      running.kill('SIGKILL');
    }, ms);
  };
  running.stdin!.write(`${JSON.stringify(job)}\n`);
  const ended = await new Promise<'done' | [number | null, string | null]>((resolve, reject) => {
    let end: [number | null, string | null] | null = null;
    let closed = false; // all lines come before the end is judged
    const both = (): void => void (end && closed && resolve(end));
    child.lines.on('line', (text) => {
      const line = JSON.parse(text) as FuzzLine;
      if ('done' in line) return resolve('done');
      if ('begin' in line) {
        current = { index: line.begin, how: line.how };
        next = line.begin + 1;
        return rearm(limit);
      }
      const how = current?.how;
      current = null;
      rearm(60_000);
      report.memory = Math.max(report.memory, line.memory);
      if (line.ms > report.slowest.ms) report.slowest = { index: line.end, ms: line.ms };
      if (line.outcome === 'foreign error') {
        report.faults.push({ index: line.end, kind: line.outcome, detail: `${how}: ${line.detail}` });
      } else report[line.outcome]++;
    });
    child.lines.once('close', () => ((closed = true), both()));
    running.once('error', reject);
    running.once('close', (...codes) => ((end = codes), both()));
  });
  clearTimeout(clock);
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
