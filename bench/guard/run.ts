/**
 * Whether the speed, memory and start of the package are what they were: `npm run bench -- guard [--write] [--only TEXT] [--now]`. Each figure is a
 * fraction of what the machine allows at that moment, measured before and after it, and is compared with bench/guard.json; below 90 % of
 * it the guard fails. What is below is measured once more first. --write keeps the fractions of this run instead; --now does not wait for other programs to be
 * quiet.
 */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheRoot } from '../../src/runtime/index.js';
import { machine, otherLoad } from '../machine.js';
import { provideCheckpoint } from '../random_checkpoint.js';
import { markdownTable, spread } from '../statistics.js';
import { RateMeter, type Rates } from './rates.js';
import { type GuardTask, guardTasks, MEMORY } from './tasks.js';

/** What is left of a kept fraction where something was lost. */
const LEAST = 0.9;

const FILE = fileURLToPath(new URL('../guard.json', import.meta.url));

/** Fractions by what was measured, for a kind of machine: its instructions and cores. */
type Kept = Record<string, { date: string; cpu: string; fractions: Record<string, number> }>;

interface Figure {
  name: string;
  figure: string;
  bound: string;
  fraction: number;
}

const say = (text: string): void => void process.stderr.write(`${text}\n`);

async function measure(task: GuardTask, meter: RateMeter): Promise<Figure[]> {
  await provideCheckpoint(task.work);
  const peer = task.peer();
  await peer.start();
  const [values, bounds, fractions]: [number[], number[], number[]] = [[], [], []];
  let before = await meter.now();
  for (let k = 0; k < task.rounds; k++) {
    const value = await peer.round();
    const after = await meter.now();
    const bound = task.bound(middle(before, after));
    values.push(value);
    bounds.push(bound);
    fractions.push(task.less ? bound / value : value / bound);
    before = after;
  }
  const memory = peer.peakMemory?.() ?? null;
  await peer.stop();
  const [value, bound, fraction] = [values, bounds, fractions].map((list) => spread(list).median) as [number, number, number]; // prettier-ignore
  const text = (x: number): string => `${x >= 100 ? x.toFixed(0) : x.toPrecision(3)} ${task.unit}`;
  const found = [{ name: task.name, figure: text(value), bound: text(bound), fraction }];
  if (task.name === MEMORY.task && memory !== null) {
    const gb = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
    found.push({
      name: MEMORY.name,
      ...{ figure: gb(memory), bound: gb(MEMORY.bytes()), fraction: MEMORY.bytes() / memory },
    });
  }
  for (const { name, figure, fraction: part } of found) say(`${name}: ${figure}, ${part.toPrecision(3)} of the bound`);
  return found;
}

const middle = (a: Rates, b: Rates): Rates => ({
  read: (a.read + b.read) / 2,
  multiply: (a.multiply + b.multiply) / 2,
});

/** Cores that others may take: beyond that, figures and rates are not of one machine. */
const QUIET = 0.3;

/** Milliseconds that are left to wait for others to be quiet. */
let patience = 60_000;

/** Waits for others to be quiet, a minute at most in all; returns the cores that they take. */
async function quietLoad(): Promise<number> {
  const began = performance.now();
  let load = await otherLoad();
  while (load > QUIET && performance.now() - began < patience) load = await otherLoad();
  patience -= performance.now() - began;
  return load;
}

/** @returns the exit code: 1 where something was lost */
export async function guard(options: { write: boolean; now: boolean; only?: string }): Promise<number> {
  const threads = os.availableParallelism();
  const { cpu, features, date } = machine();
  const kind = `${process.arch}, ${threads} cores, ${features.join(' ')}`;
  const all = JSON.parse(fs.existsSync(FILE) ? fs.readFileSync(FILE, 'utf8') : '{}') as Kept;
  const kept = all[kind]?.fractions ?? {};
  execFileSync('npm', ['run', '-s', 'build'], { stdio: 'inherit' });
  const others: number[] = [];
  const meter = RateMeter.start(threads);
  await meter.now(); // its memory is there after the first
  const tasks = guardTasks(path.join(cacheRoot(), 'bench'), threads).filter(
    ({ name }) => options.only === undefined || name.includes(options.only),
  );
  const lost = ({ name, fraction }: Figure): boolean => fraction < LEAST * (kept[name] ?? 0);
  const figures: Figure[] = [];
  for (const task of tasks) {
    others.push(options.now ? await otherLoad() : await quietLoad());
    let found = await measure(task, meter);
    if (!options.write && found.some(lost)) {
      say('  once more');
      const again = await measure(task, meter);
      found = found.map((figure, i) => (again[i]!.fraction > figure.fraction ? again[i]! : figure));
    }
    figures.push(...found);
  }
  await meter.stop();
  const rows = figures.map((figure) => {
    const before = kept[figure.name];
    const parts = [figure.fraction.toPrecision(3), before?.toPrecision(3) ?? '–'];
    return [figure.name, figure.figure, figure.bound, ...parts, before === undefined ? '–' : (figure.fraction / before).toFixed(2)]; // prettier-ignore
  });
  process.stdout.write(
    `${kind}; cores taken by other programs: ${spread(others).median.toFixed(2)}\n\n` +
      `${markdownTable(['what', 'measured', 'the machine allows', 'fraction', 'kept', 'of it'], rows)}\n`,
  );
  if (spread(others).median > QUIET)
    say('Other programs kept this machine busy: run the guard when it is quiet, before you believe it.');
  if (options.write) {
    const fractions = Object.fromEntries(figures.map(({ name, fraction }) => [name, Number(fraction.toPrecision(3))]));
    all[kind] = { date, cpu, fractions: { ...kept, ...fractions } };
    fs.writeFileSync(FILE, `${JSON.stringify(all, null, 2)}\n`);
    return 0;
  }
  if (Object.keys(kept).length === 0) {
    say(`bench/guard.json has nothing of such a machine (${kind}): run the guard with --write before your change.`);
    return 1;
  }
  const failed = figures.filter(lost);
  for (const { name, fraction } of failed)
    say(`LOST: ${name}: ${fraction.toPrecision(3)} of the bound, ${LEAST * 100} % of ${kept[name]} are expected`);
  return failed.length > 0 ? 1 : 0;
}
