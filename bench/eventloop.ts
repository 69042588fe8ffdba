/**
 * How long the event loop stands still (`npm run bench -- eventloop [--model 130m] [--dtype bfloat16]`): while a model is loaded, a prompt of 2,048
 * read, 500 tokens streamed, 50 training steps made, and in the first call of all, which compiles. Wanted: p99 below 20 ms, the longest below 150.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import * as os from 'node:os';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { configureRuntime, selectBackend } from '../src/runtime/index.js';
import type { Mamba2ForCausalLM } from '../src/models/mamba2/causal_lm.js';
import { Trainer, TrainingArguments } from '../src/training/index.js';
import { modelOf } from './first_calls.js';
import { markdownTable } from './statistics.js';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    model: { type: 'string', default: '130m' },
    dtype: { type: 'string', default: 'bfloat16' },
    steps: { type: 'string', default: '50' },
  },
});

const rows: string[][] = [];

async function watched<T>(what: string, work: () => Promise<T>): Promise<T> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  await new Promise((resolve) => setTimeout(resolve, 50));
  delay.enable();
  const began = performance.now();
  const result = await work();
  const seconds = (performance.now() - began) / 1000;
  await new Promise((resolve) => setTimeout(resolve, 20));
  delay.disable();
  const ms = (nanoseconds: number): string => (nanoseconds / 1e6).toFixed(1);
  rows.push([what, seconds.toFixed(1), ms(delay.percentile(99)), ms(delay.max)]);
  process.stderr.write(`${rows.at(-1)!.join('  ')}\n`);
  return result;
}

configureRuntime({ compileCache: true });
await selectBackend('auto');
const prompt = Array.from({ length: 2048 }, (_, i) => 5 + ((i * 37) % 400));
const load = (): Promise<Mamba2ForCausalLM> =>
  modelOf(args.model === 'tiny-books' ? args.model : `${args.model}-${args.dtype}`);
const say = (model: Mamba2ForCausalLM, input_ids: number[][], max_new_tokens: number): Promise<unknown> =>
  model.generate({
    input_ids,
    max_new_tokens,
    min_new_tokens: max_new_tokens,
    streamer: { put: () => undefined, end: () => undefined },
  });

const cold = await load();
await watched('first call, compiling', () => say(cold, [prompt], 10));
cold.dispose();
const model = await watched('loading, warm, and a token', async () => {
  const made = await load();
  await say(made, [[5, 6, 7]], 1);
  return made;
});
await say(model, [prompt], 10);
await watched('a prompt of 2,048', () => say(model, [prompt], 1));
await watched('500 tokens, streamed', () => say(model, [[5, 6, 7]], 500));
model.dispose();
const trained = await load();
const steps = Number(args.steps);
const trainer = new Trainer({
  model: trained,
  args: new TrainingArguments({
    output_dir: path.join(os.tmpdir(), `tfjs-mamba2-eventloop-${process.pid}`),
    max_steps: steps,
    per_device_train_batch_size: 1,
    save_strategy: 'no',
    logging_steps: steps,
  }),
  train_dataset: Array.from({ length: 8 }, (_, i) => ({ input_ids: prompt.slice(i, i + 128) })),
});
await watched(`${steps} training steps of 128 tokens`, () => trainer.train());
trainer.dispose();
trained.dispose();
process.stdout.write(`${markdownTable(['what', 's', 'p99 ms', 'longest ms'], rows)}\n`);
