/**
 * Decoding at every public size that fits, our engine and llama.cpp in turn, beside what the machine's memory allows in the same run:
 *
 *     npm run bench -- sizes [--models 130m,370m,…] [--forms bfloat16,int4,float32] [--rounds 3] [--tokens 16] [--python PATH]
 *       [--keep] [--svg FILE] [--json FILE]
 *
 * Checkpoints of random weights are written into the cache folder and deleted after their turn, unless they were there or --keep is given.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { cacheRoot } from '../src/runtime/index.js';
import { multiplyAdds, stepBytes, WEIGHT_BYTES, type WeightForm } from './bounds.js';
import { RateMeter } from './guard/rates.js';
import { machine, otherLoad } from './machine.js';
import { type GgufType, llamacpp } from './peers/llamacpp.js';
import { ours } from './peers/ours.js';
import { started, type Work } from './peers/peer.js';
import { provideCheckpoint, publicConfig } from './random_checkpoint.js';
import { type Bar, barChart } from './svg.js';
import { markdownTable, ratios, spread } from './statistics.js';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    models: { type: 'string', default: '130m,370m,780m,1.3b,2.7b,7b' },
    forms: { type: 'string', default: 'bfloat16,int4,float32' },
    rounds: { type: 'string', default: '3' },
    tokens: { type: 'string', default: '16' },
    threads: { type: 'string', default: String(os.availableParallelism()) },
    python: { type: 'string', default: process.env.MAMBA2_BENCH_PYTHON ?? 'python3' },
    keep: { type: 'boolean', default: false },
    svg: { type: 'string' },
    json: { type: 'string' },
  },
});

/** The same weights in llama.cpp. */
const PEER: Record<WeightForm, GgufType> = { float32: 'F32', bfloat16: 'BF16', int4: 'Q4_0' };
/** What a process holds beside its weights while it loads and decodes, at most. */
const REST = 2e9;

interface Figure {
  model: string;
  form: WeightForm;
  ours: number[];
  llamacpp: number[];
  /** Tokens a second at the rate at which the machine read meanwhile. */
  bound: number[];
  bytes: number;
}

const say = (text: string): void => void process.stderr.write(`${text}\n`);

async function measure(work: Work, form: WeightForm, meter: RateMeter): Promise<Figure> {
  const bytes = stepBytes(publicConfig(work.model), form);
  const figure: Figure = { model: work.model, form, ours: [], llamacpp: [], bound: [], bytes };
  const own = (await started(() => ours(form === 'int4' ? 'int4' : 'compiled', work)))!;
  const other = await started(() => llamacpp(work, PEER[form], args.python));
  let before = await meter.now();
  for (let k = 0; k < Number(args.rounds); k++) {
    figure.ours.push(await own.round());
    const after = await meter.now();
    figure.bound.push((before.read + after.read) / 2 / bytes);
    if (other) figure.llamacpp.push(await other.round());
    before = await meter.now();
  }
  await own.stop();
  await other?.stop();
  return figure;
}

const meter = RateMeter.start(Number(args.threads));
await meter.now(); // its memory is there after the first
const figures: Figure[] = [];
const others: number[] = [];
for (const model of args.models.split(',')) {
  const { layers, head } = multiplyAdds(publicConfig(model));
  const written = new Set<string>();
  for (const form of args.forms.split(',') as WeightForm[]) {
    const dtype = form === 'float32' ? 'float32' : 'bfloat16';
    const size = (layers + head) * WEIGHT_BYTES[dtype];
    if (size + REST > os.totalmem()) {
      say(`left out: ${model} ${form}, which would take ${(size / 1e9).toFixed(0)} GB`);
      continue;
    }
    const checkpoint = path.join(cacheRoot(), 'bench', `${model}-${dtype}`);
    const work: Work = { task: 'decode', model, dtype, checkpoint, tokens: Number(args.tokens), rows: 1, threads: Number(args.threads) }; // prettier-ignore
    if (await provideCheckpoint(work)) written.add(checkpoint);
    others.push(await otherLoad());
    const figure = await measure(work, form, meter);
    figures.push(figure);
    say(
      `${model} ${form}: ${spread(figure.ours).median.toFixed(1)} of ${spread(figure.bound).median.toFixed(1)} tok/s`,
    );
  }
  if (!args.keep) for (const folder of written) fs.rmSync(folder, { recursive: true });
}
await meter.stop();

const { cpu, cores, date, features, node, tensorflow } = machine();
const f = (list: readonly number[]): string => (list.length > 0 ? spread(list).median.toPrecision(3) : '–');
const rate = (list: readonly number[], { bytes }: Figure): number => (spread(list).median * bytes) / 1e9;
const rows = figures.map((figure) => [
  figure.model,
  figure.form,
  f(figure.ours),
  f(figure.llamacpp),
  figure.llamacpp.length > 0 ? ratios(figure.ours, figure.llamacpp).median.toFixed(2) : '–',
  f(figure.bound),
  ratios(figure.ours, figure.bound).median.toFixed(2),
  rate(figure.ours, figure).toFixed(1),
]);
process.stdout.write(
  `${date}, ${cpu} (${cores} cores; ${features.join(', ')}), Node ${node}, TensorFlow ${tensorflow}; decoding, one row, ` +
    `medians of ${args.rounds} rounds of ${args.tokens} tokens; cores taken by other programs: ${spread(others).median.toFixed(2)}\n\n` +
    `${markdownTable(['model', 'weights', 'tok/s', 'llama.cpp', 'ratio', 'the memory allows', 'of it', 'GB/s'], rows)}\n`,
);
if (args.json) fs.writeFileSync(args.json, `${JSON.stringify({ ...machine(), others, figures }, null, 2)}\n`);
if (args.svg) {
  const bars = figures.map((figure): Bar => {
    const line = rate(figure.bound, figure);
    const values = [rate(figure.ours, figure), ...(figure.llamacpp.length > 0 ? [rate(figure.llamacpp, figure)] : [])];
    return { name: `${figure.model} ${figure.form}`, values, line };
  });
  const title = 'Decoding, one row: weights and states, GB a second';
  fs.writeFileSync(args.svg, barChart(title, ['tfjs-mamba2', 'llama.cpp'], bars, 'what two threads read'));
}
