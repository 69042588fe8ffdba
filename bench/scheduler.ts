/**
 * What a scheduler makes of clients that come at once: tokens per second of one and of several, interleaved, and the time to the first
 * token of a conversation's first and second turn. `npx tsx bench/scheduler.ts --model DIR [--clients 8 --rows 8 --in 64 --out 128 --rounds 3]
 * `--options '{"state_cache":false}'` are options of the scheduler besides.
 */
import { parseArgs } from 'node:util';
import { AutoModelForCausalLM, loadTensorFlow, Scheduler, type SchedulerOptions } from '../src/index.js';
import { spread } from './statistics.js';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    clients: { type: 'string', default: '8' },
    rows: { type: 'string', default: '8' },
    block: { type: 'string' },
    in: { type: 'string', default: '64' },
    out: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '3' },
    history: { type: 'string', default: '4000' },
    options: { type: 'string', default: '{}' },
  },
});
const [clients, rows, prompt, answer, rounds, history] = (
  ['clients', 'rows', 'in', 'out', 'rounds', 'history'] as const
).map((name) => Number(values[name])) as [number, number, number, number, number, number];

loadTensorFlow();
const model = await AutoModelForCausalLM.from_pretrained(values.model!);
const scheduler = new Scheduler(await model.engine(), {
  rows,
  ...(values.block && { block: Number(values.block) }),
  ...(JSON.parse(values.options) as SchedulerOptions),
});
const ids = (seed: number, length: number): number[] =>
  Array.from({ length }, (_, i) => 3 + ((seed * 7919 + i * 104729) % 50000));
let seed = 0;
const options = { eos_token_id: null, max_new_tokens: answer };

/** Tokens per second of all clients together. */
async function rate(count: number): Promise<number> {
  const began = performance.now();
  const results = await Promise.all(
    Array.from({ length: count }, () => scheduler.submit({ ...options, input_ids: ids(seed++, prompt) }).result),
  );
  const tokens = results.reduce((sum, { usage }) => sum + usage.completion_tokens, 0);
  return (1000 * tokens) / (performance.now() - began);
}

const began = performance.now();
await scheduler.warmup();
await rate(1);
console.log(`warm after ${((performance.now() - began) / 1000).toFixed(1)} s`);
const rates = { alone: [] as number[], one: [] as number[], all: [] as number[] };
for (let round = 0; round < rounds; round++) {
  rates.one.push(await rate(1));
  rates.all.push(await rate(clients));
  const from = performance.now();
  await model.generate({ ...options, input_ids: [ids(seed++, prompt)] });
  rates.alone.push((1000 * answer) / (performance.now() - from));
}
const [one, all, alone] = [rates.one, rates.all, rates.alone].map((list) => spread(list).median) as [number, number, number]; // prettier-ignore
console.log(
  `tokens per second: one client ${one.toFixed(1)}, ${clients} clients ${all.toFixed(1)} (${(all / one).toFixed(2)} times); generate() alone ${alone.toFixed(1)}`,
);

const first = await scheduler.submit({ ...options, input_ids: ids(seed++, history), max_new_tokens: 16 }).result;
const said = [...ids(seed - 1, history), ...first.choices[0]!.ids, ...ids(seed++, 12)];
const second = await scheduler.submit({ ...options, input_ids: said, max_new_tokens: 16 }).result;
const [a, b] = [first.times.first_token!, second.times.first_token!];
console.log(
  `first token of ${history} ids ${a.toFixed(0)} ms, of the second turn ${b.toFixed(0)} ms (1/${(a / b).toFixed(0)}), ${second.usage.cached_tokens} ids from a snapshot`,
);
await scheduler.close();
model.dispose();
