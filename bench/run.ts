/**
 * Benchmarks: our engines and other programs with the same random weights, in turn.
 *
 *   npm run bench -- decode|prefill|train|load [--model 130m] [--dtype float32|bfloat16] [--tokens N] [--rows N] [--rounds N]
 *     [--peers compiled,eager,int4,transformers,F32,BF16,Q8_0,Q4_0] [--threads N] [--python PATH] [--xla FLAG]... [--baseline CHECKOUT] [--json FILE]
 *
 *   npm run bench -- batches|sampling|sizes|eventloop|sidebyside|serving|webgpu|onnx|wllama …      (see the files of these names)
 *   npm run bench -- guard [--write] [--only TEXT] [--now]       see guard/run.ts
 *
 * --rows decodes several rows at once. --baseline measures the same peers of ours in another checkout too, in turn: before and after a change.
 * train is a step of one row, float32: loss, gradients, clipping, AdamW.
 */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { cacheRoot } from '../src/runtime/index.js';
import { guard } from './guard/run.js';
import { machine, otherLoad } from './machine.js';
import { GGUF_TYPES, type GgufType, llamacpp } from './peers/llamacpp.js';
import { ours } from './peers/ours.js';
import { MissingPeer, type Peer, started, type Task, type Work } from './peers/peer.js';
import { transformers } from './peers/transformers.js';
import { provideCheckpoint } from './random_checkpoint.js';
import { markdownTable, ratios, spread } from './statistics.js';

for (const task of ['batches', 'sampling', 'sizes', 'eventloop', 'sidebyside', 'serving', 'webgpu', 'onnx', 'wllama']) {
  if (process.argv[2] !== task) continue;
  await import(`./${task}.js`);
  process.exit();
}

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: '130m' },
    dtype: { type: 'string' },
    tokens: { type: 'string' },
    rows: { type: 'string', default: '1' },
    baseline: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    peers: { type: 'string' },
    threads: { type: 'string', default: String(os.availableParallelism()) },
    python: { type: 'string', default: process.env.MAMBA2_BENCH_PYTHON ?? 'python3' },
    xla: { type: 'string', multiple: true, default: [] },
    json: { type: 'string' },
    write: { type: 'boolean', default: false },
    now: { type: 'boolean', default: false },
    only: { type: 'string' },
  },
});

if (positionals[0] === 'guard') process.exit(await guard(args));

const say = (text: string): void => void process.stderr.write(`${text}\n`);

function fail(text: string): never {
  say(text);
  process.exit(2);
}

function whole(name: string, text: string): number {
  const value = Number(text);
  return Number.isInteger(value) && value > 0
    ? value
    : fail(`--${name}: got '${text}', expected a whole number from 1`);
}

function workOf(): Work {
  const task = positionals[0] as Task;
  if (!['decode', 'prefill', 'train', 'load'].includes(task))
    fail(`What to measure: got '${task}', expected decode, prefill, train or load`);
  const dtype = (args.dtype ?? (task === 'train' ? 'float32' : 'bfloat16')) as Work['dtype'];
  const types = task === 'train' ? ['float32'] : ['float32', 'bfloat16'];
  if (!types.includes(dtype)) fail(`--dtype: got '${dtype}', expected ${types.join(' or ')}`);
  const usual = { decode: 32, prefill: 512, train: 512, load: 16 };
  return {
    task,
    dtype,
    model: args.model,
    checkpoint: path.join(cacheRoot(), 'bench', `${args.model}-${dtype}`),
    tokens: args.tokens === undefined ? usual[task] : whole('tokens', args.tokens),
    rows: whole('rows', args.rows),
    threads: whole('threads', args.threads),
  };
}

const OURS = ['compiled', 'int4', 'eager'] as const;
const isOurs = (name: string): name is (typeof OURS)[number] => (OURS as readonly string[]).includes(name);

function peerOf(name: string, work: Work): Peer {
  if (isOurs(name)) return ours(name, work, name === 'eager' ? [] : args.xla);
  if (name === 'transformers' && work.rows > 1) throw new MissingPeer(`${name} decodes one row here`);
  if (name === 'transformers') return transformers(work, args.python);
  if (GGUF_TYPES.includes(name as GgufType)) return llamacpp(work, name as GgufType, args.python);
  return fail(`--peers: '${name}' is none of compiled, eager, int4, transformers, ${GGUF_TYPES.join(', ')}`);
}

const work = workOf();
if (work.task === 'load') execFileSync('npm', ['run', '-s', 'build'], { stdio: 'inherit' });
await provideCheckpoint(work);
const same = work.dtype === 'float32' ? 'F32' : 'BF16';
const names = (
  args.peers ??
  (work.task === 'load' || work.task === 'train' ? 'compiled,transformers' : `compiled,eager,transformers,${same}`)
).split(',');
const rounds = whole('rounds', args.rounds);

const baseline = args.baseline === undefined ? null : path.resolve(args.baseline);
if (baseline !== null && !fs.existsSync(path.join(baseline, 'bench/peers/ours_worker.ts')))
  fail(`--baseline: '${args.baseline}' is no checkout of this project`);
const makers = names.flatMap((name) => [
  () => peerOf(name, work),
  ...(baseline !== null && isOurs(name) ? [() => ours(name, work, name === 'eager' ? [] : args.xla, baseline)] : []),
]);

const peers: Peer[] = [];
for (const make of makers) {
  const peer = await started(make);
  if (peer) peers.push(peer);
}
if (peers.length === 0) fail('nothing to measure');

const figures = peers.map((): number[] => []);
const others: number[] = [];
for (let k = 0; k < rounds; k++) {
  others.push(await otherLoad());
  // the first of a round finds the caches of the last: forwards and backwards in turn
  const order = [...peers.keys()];
  for (const i of k % 2 === 0 ? order : order.reverse()) figures[i]!.push(await peers[i]!.round());
  say(
    `round ${k + 1} of ${rounds}: ${figures.map((list, i) => `${peers[i]!.name} ${list[k]!.toFixed(1)}`).join(', ')}`,
  );
}
const memory = peers.map((peer) => peer.peakMemory?.() ?? null);
for (const peer of peers) await peer.stop();

const unit = work.task === 'load' ? 's' : 'tokens/s';
const digits = work.task === 'load' ? 2 : 1;
const result = {
  ...machine(),
  work: {
    task: work.task,
    model: work.model,
    dtype: work.dtype,
    tokens: work.tokens,
    rows: work.rows,
    threads: work.threads,
  },
  rounds,
  unit,
  otherLoad: spread(others),
  loadAverage: os.loadavg()[0]!,
  peers: peers.map((peer, i) => ({
    name: peer.name,
    version: peer.version,
    figures: figures[i]!,
    peakMemory: memory[i]!,
    ...spread(figures[i]!),
    // how many times as fast the first one is
    ratio: work.task === 'load' ? ratios(figures[i]!, figures[0]!) : ratios(figures[0]!, figures[i]!),
  })),
};

const f = (value: number): string => value.toFixed(digits);
const r = (value: number): string => value.toFixed(2);
const table = markdownTable(
  ['engine', unit, 'least–most', `${peers[0]!.name} is faster by`, 'least–most', 'peak memory, GB'],
  result.peers.map((p) => [
    p.name,
    f(p.median),
    `${f(p.min)}–${f(p.max)}`,
    r(p.ratio.median),
    `${r(p.ratio.min)}–${r(p.ratio.max)}`,
    p.peakMemory === null ? '–' : (p.peakMemory / 1e9).toFixed(2),
  ]),
);
process.stdout.write(
  `${work.task} ${work.model} ${work.dtype}, ${work.tokens} tokens${work.rows > 1 ? ` of ${work.rows} rows` : ''}, ${work.threads} threads, medians of ${rounds} rounds\n` +
    `${result.date}, ${result.cpu} (${result.cores} cores; ${result.features.join(', ')}), Node ${result.node}, TensorFlow ${result.tensorflow}; ` +
    `cores taken by other programs: ${r(result.otherLoad.median)} (${r(result.otherLoad.min)}–${r(result.otherLoad.max)})\n` +
    `${[...new Set(result.peers.map((p) => p.version))].join('; ')}\n\n${table}\n`,
);
if (args.json) {
  fs.writeFileSync(`${args.json}.part`, `${JSON.stringify(result, null, 2)}\n`);
  fs.renameSync(`${args.json}.part`, args.json);
}
