/**
 * The scheduler beside the engine that it drives: tokens per second of the engine alone with all rows full, of the scheduler with as many
 * clients that come at once, and where the scheduler's time goes. Weights are random; nothing is read from disk.
 * `npx tsx bench/cuda/scheduler.ts --model 2.7b --clients 64 --in 64,512 --out 128` (a card, about two minutes)
 */
import { parseArgs } from 'node:util';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import type { ProgramDtype } from '../../src/engine/compiled/decoding_program.js';
import type { StateDtype } from '../../src/engine/compiled/program_states.js';
import { Scheduler } from '../../src/engine/scheduler/scheduler.js';
import { GREEDY } from '../../src/generation/engine.js';
import { selectBackend } from '../../src/runtime/index.js';
import { type Calls, FROM_HOST, ProgramTimes, TO_HOST } from '../program_times.js';
import { markdownTable, spread } from '../statistics.js';
import { gpuMemoryMb } from './memory.js';
import { syntheticModel } from './synthetic.js';

const { values: args } = parseArgs({
  options: {
    model: { type: 'string', default: '2.7b' },
    layers: { type: 'string' },
    dtype: { type: 'string', default: 'bfloat16' },
    state: { type: 'string', default: 'float32' },
    device: { type: 'string', default: 'auto' },
    clients: { type: 'string', default: '64' },
    rows: { type: 'string' }, // default: as many as clients
    block: { type: 'string' },
    'prompt-tokens': { type: 'string' },
    readers: { type: 'string' },
    'device-bytes': { type: 'string' },
    'row-sizes': { type: 'string' }, // as 1,8
    in: { type: 'string', default: '64,512' },
    out: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '3' },
    verbose: { type: 'boolean', default: false }, // what is compiled
    'no-cache': { type: 'boolean', default: false }, // no snapshots at all
  },
});
const started = performance.now();
const say = (text: string): void => console.log(`${((performance.now() - started) / 1000).toFixed(1)} s: ${text}`);
const report = await selectBackend(args.device as 'auto');
const clients = Number(args.clients);
const rows = Number(args.rows ?? clients);
const out = Number(args.out);
const rounds = Number(args.rounds);
const prompts = args.in.split(',').map(Number);

const model = syntheticModel(args.model, false, args.layers === undefined ? undefined : Number(args.layers));
const { vocab_size } = model.config;
const engine = new CompiledEngine(model.weights, {
  dtype: args.dtype as ProgramDtype,
  batches: [1, rows],
  state_dtype: args.state as StateDtype,
  on_compile: (name, phase, ms) => {
    if (args.verbose && ms !== null) say(`${phase} ${name} ${(ms / 1000).toFixed(2)} s`);
  },
});
const times = new ProgramTimes();
const scheduler = new Scheduler(engine, {
  rows,
  queue: clients,
  ...(args.block !== undefined && { block: Number(args.block) }),
  ...(args['prompt-tokens'] !== undefined && { prompt_tokens: Number(args['prompt-tokens']) }),
  ...(args.readers !== undefined && { readers: Number(args.readers) }),
  ...(args['row-sizes'] !== undefined && { row_sizes: args['row-sizes'].split(',').map(Number) }),
  ...(args['device-bytes'] !== undefined && { state_cache: { device_bytes: Number(args['device-bytes']) } }),
  ...(args['no-cache'] && { state_cache: false as const }),
});
say(`${report.backend}, ${report.gpu.names[0] ?? 'no GPU'}; ${args.model} ${args.dtype}, ${rows} rows`);
await scheduler.warmup();
say(`warm, ${gpuMemoryMb() ?? '-'} MB of the card taken`);
const compiled = [...times.take()].sort(([, a], [, b]) => b.ms - a.ms).slice(0, 8);
say(`of it: ${compiled.map(([kind, { count, ms }]) => `${kind} ${(ms / 1000).toFixed(1)} s (${count})`).join(', ')}`);

/** Tokens per second of the engine, all rows full, in blocks as long as it likes. */
async function engineAlone(): Promise<number> {
  const state = await engine.createState(rows);
  await engine.prefill(
    state,
    Array.from({ length: rows }, (_, row) => ids(row, 16)),
  );
  await engine.decode(state, out, GREEDY, []);
  const rates: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const began = performance.now();
    await engine.decode(state, out, GREEDY, []);
    rates.push((1000 * rows * out) / (performance.now() - began));
  }
  state.dispose();
  return spread(rates).median;
}

function ids(seed: number, length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => 3 + ((seed * 7919 + i * 104729) % (vocab_size - 3)));
}

let seed = 1000;

/** All clients at once. @returns milliseconds until the last has all its tokens, and until each has its first */
async function round(length: number, count = clients): Promise<{ ms: number; first: number[] }> {
  const began = performance.now();
  const results = await Promise.all(
    Array.from(
      { length: count },
      () => scheduler.submit({ input_ids: ids(seed++, length), max_new_tokens: out, eos_token_id: null }).result,
    ),
  );
  const tokens = results.reduce((sum, { usage }) => sum + usage.completion_tokens, 0);
  if (tokens !== count * out) throw new Error(`${tokens} tokens, expected ${count * out}`);
  return { ms: performance.now() - began, first: results.map(({ times }) => times.first_token!) };
}

const alone = await engineAlone();
times.take();
say(`the engine alone, ${rows} rows, blocks of ${engine.preferred_block}: ${alone.toFixed(0)} tok/s`);
for (const length of prompts) {
  await round(length); // compiles what is left
  const measured: { ms: number; first: number[]; calls: ReadonlyMap<string, Calls> }[] = [];
  times.take();
  for (let k = 0; k < rounds; k++) measured.push({ ...(await round(length)), calls: times.take() });
  const [{ ms, first, calls }] = measured.sort((a, b) => a.ms - b.ms).slice(Math.floor(rounds / 2)) as [
    (typeof measured)[number],
  ];
  const rate = (1000 * clients * out) / ms;
  const one = (1000 * out) / (await round(length, 1)).ms;
  times.take();
  const reading = [...calls].filter(([kind]) => kind.startsWith('prefill')).reduce((sum, [, own]) => sum + own.ms, 0);
  const withPrompts = (1000 * clients * out) / ((1000 * clients * out) / alone + reading);
  console.log(
    `\n${clients} clients at once, ${length} ids in, ${out} out, median of ${rounds}: ${rate.toFixed(0)} tok/s`,
  );
  console.log(`${(rate / alone).toFixed(3)} of the engine's decoding, ${(rate / withPrompts).toFixed(3)} of it with the time of reading added;`); // prettier-ignore
  console.log(`one client: ${one.toFixed(1)} tok/s, all of them ${(rate / one).toFixed(2)} times that`);
  console.log(`first token after ${spread(first).median.toFixed(0)} ms (median), ${spread(first).max.toFixed(0)} ms (last)\n`); // prettier-ignore
  const inCalls = [...calls.values()].reduce((sum, own) => sum + own.ms, 0);
  const line = (kind: string, { count, ms: own, bytes }: Calls): string[] => [
    kind,
    String(count),
    own.toFixed(0),
    count > 0 ? (own / count).toFixed(2) : '',
    `${((100 * own) / ms).toFixed(1)} %`,
    bytes > 0 ? (bytes / 1e6).toFixed(0) : '',
  ];
  const sorted = [...calls].sort(([, a], [, b]) => b.ms - a.ms).map(([kind, own]) => line(kind, own));
  const rest = line('outside of calls: JavaScript, waits', { count: 0, ms: ms - inCalls, bytes: 0 });
  const head = ['calls', 'count', 'ms', 'ms each', 'of all', 'MB'];
  console.log(markdownTable(head, [...sorted, rest, line('all', { count: 0, ms, bytes: 0 })]));
  const crossed = [TO_HOST, FROM_HOST].map((kind) => calls.get(kind)?.count ?? 0);
  console.log(`\nstates through the host: ${crossed[0]} times there, ${crossed[1]} times back`);
}
say(`done, ${gpuMemoryMb() ?? '-'} MB of the card taken`);
await scheduler.close();
engine.dispose();
model.dispose();
process.exit(0);
