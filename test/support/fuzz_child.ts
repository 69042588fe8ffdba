/** The process of fuzz.ts: the module as argument, a job for each line of its input; lines of JSON on descriptor 3. */
import { writeFileSync, writeSync } from 'node:fs';
import { Mamba2Error } from '../../src/base/errors.js';
import { createInterface } from 'node:readline';
import type { FuzzJob, FuzzLine, FuzzTargets } from './fuzz.js';
import { mutateBytes, mutateJson } from './mutate.js';
import { memoryOf } from './process_memory.js';
import { lcg } from './random.js';

const { fuzzTargets } = (await import(process.argv[2]!)) as { fuzzTargets: FuzzTargets };
// written at once: what stands in a buffer is lost when the process dies
const say = (...lines: FuzzLine[]): void =>
  void writeSync(3, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));

// an error outside of what was awaited is the reader's fault, too
let stray: unknown = null;
process.on('unhandledRejection', (error) => (stray = error));
process.on('uncaughtException', (error) => (stray = error));

/** Linux keeps the most that was ever resident, which is asked for once a job, and begins anew for each where it lets us. */
const KEPT = memoryOf('VmHWM') !== null;
function forgetPeak(): void {
  try {
    if (KEPT) writeFileSync('/proc/self/clear_refs', '5');
  } catch {
    // what was held before counts, too
  }
}

async function run({ target: name, seed, first, end }: FuzzJob): Promise<void> {
  const target = fuzzTargets[name]!;
  const samples = await target.samples();
  forgetPeak();
  let memory = 0;
  // the end of a file is told with the beginning of the next: half as many calls of the system
  let last: FuzzLine[] = [];
  for (let index = first; index < end; index++) {
    const random = lcg(Math.imul(seed, 1_000_003) + index * 2_654_435);
    random();
    const sample = samples[Math.floor(random() * samples.length)]!;
    const { bytes, how } = target.kind === 'json' ? mutateJson(sample, random) : mutateBytes(sample, random);
    say(...last, { begin: index, how });
    // its own time: on a busy machine a process waits for its turn
    const start = process.cpuUsage();
    const error: unknown = await target.attempt(bytes).then(
      () => null,
      (failure: unknown) => failure ?? new Error('a rejection with nothing'),
    );
    const fault = stray ?? (error instanceof Mamba2Error ? null : error);
    stray = null;
    const { user, system } = process.cpuUsage(start);
    const ms = (user + system) / 1000;
    if (!KEPT) memory = Math.max(memory, process.memoryUsage.rss());
    if (fault === null) last = [{ end: index, outcome: error === null ? 'accepted' : 'refused', ms }];
    else {
      const detail = fault instanceof Error ? `${fault.stack}`.slice(0, 600) : JSON.stringify(fault).slice(0, 200);
      last = [{ end: index, outcome: 'foreign error', detail, ms }];
    }
  }
  say(...last, { done: true, memory: memoryOf('VmHWM') ?? memory });
}

// the handlers above would take a fault of this file for one of the reader
const failed = (error: unknown): never => {
  process.stderr.write(`${(error as Error).stack}\n`);
  process.exit(1);
};
say({ kinds: Object.keys(fuzzTargets) });
for await (const line of createInterface({ input: process.stdin }))
  await run(JSON.parse(line) as FuzzJob).catch(failed);
process.exit(0);
