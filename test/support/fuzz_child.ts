/** The process of fuzz.ts: the module as argument, a job for each line of its input; lines of JSON on descriptor 3. */
import { writeSync } from 'node:fs';
import { Mamba2Error } from '../../src/base/errors.js';
import { createInterface } from 'node:readline';
import type { FuzzJob, FuzzLine, FuzzTargets } from './fuzz.js';
import { mutateBytes, mutateJson } from './mutate.js';
import { memoryOf } from './process_memory.js';
import { lcg } from './random.js';

const { fuzzTargets } = (await import(process.argv[2]!)) as { fuzzTargets: FuzzTargets };
// written at once: what stands in a buffer is lost when the process dies
const say = (line: FuzzLine): void => void writeSync(3, `${JSON.stringify(line)}\n`);

// an error outside of what was awaited is the reader's fault, too
let stray: unknown = null;
process.on('unhandledRejection', (error) => (stray = error));
process.on('uncaughtException', (error) => (stray = error));

async function run({ target: name, seed, first, end }: FuzzJob): Promise<void> {
  const target = fuzzTargets[name]!;
  const samples = await target.samples();
  for (let index = first; index < end; index++) {
    const random = lcg(Math.imul(seed, 1_000_003) + index * 2_654_435);
    random();
    const sample = samples[Math.floor(random() * samples.length)]!;
    const { bytes, how } = target.kind === 'json' ? mutateJson(sample, random) : mutateBytes(sample, random);
    say({ begin: index, how });
    const start = performance.now();
    const error: unknown = await target.attempt(bytes).then(
      () => null,
      (failure: unknown) => failure ?? new Error('a rejection with nothing'),
    );
    const fault = stray ?? (error instanceof Mamba2Error ? null : error);
    stray = null;
    const ms = performance.now() - start;
    const memory = memoryOf('VmHWM') ?? process.memoryUsage().rss;
    if (fault === null) say({ end: index, outcome: error === null ? 'accepted' : 'refused', ms, memory });
    else {
      const detail = fault instanceof Error ? `${fault.stack}`.slice(0, 600) : JSON.stringify(fault).slice(0, 200);
      say({ end: index, outcome: 'foreign error', detail, ms, memory });
    }
  }
}

// the handlers above would take a fault of this file for one of the reader
const failed = (error: unknown): never => {
  process.stderr.write(`${(error as Error).stack}\n`);
  process.exit(1);
};
for await (const line of createInterface({ input: process.stdin })) {
  await run(JSON.parse(line) as FuzzJob).catch(failed);
  say({ done: true });
}
process.exit(0);
