/**
 * A model of which several GPUs have a part of each layer (tp_plan), beside the same on one GPU: ids, logits and states, and the times of a prompt and of
 * tokens. JSON lines; what a run says besides goes to stderr. `node --import tsx bench/cuda/tensor_parallel.ts` checks the trained model in float32 and measures 2.7b and
 * 7b with random weights in bfloat16.
 *
 * `--checks no` or `--sizes ''` leave one of both out; `--sizes 7b`, `--layers 8`; `--cards 2`; `--sums inside,between` has both ways of adding up; `--whole yes` also reads
 * prompts by one program and not by one a layer; `--flags 'A B;C'` runs with XLA's flags A and B, and with C; `--alone no` has no run on one GPU; `--dtype float32` widens the random weights, without TF32;
 * `--quick yes` has one prompt and its tokens alone; `--turns 2` measures all of them so often, in turn.
 * On a processor: `--cpu yes --sizes tiny --prompt 40 --tokens 8`.
 *
 * Each run is a process of its own: a GPU that is asked for alone is the only one that TensorFlow sees. One that fails is a line with `error`, and the others go on.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import type { CompiledEngineOptions } from '../../src/engine/compiled/options.js';
import { type EngineSampling, GREEDY } from '../../src/generation/engine.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { configureRuntime, selectBackend } from '../../src/runtime/index.js';
import { largestDifference } from '../../test/support/compare.js';
import { syntheticModel } from './synthetic.js';

const { values: args } = parseArgs({
  options: {
    model: { type: 'string', default: 'models/tiny-books-mamba2' },
    checks: { type: 'string', default: 'yes' },
    sizes: { type: 'string', default: '2.7b,7b' },
    layers: { type: 'string' },
    cards: { type: 'string', default: '2' },
    sums: { type: 'string', default: 'inside,between' },
    whole: { type: 'string', default: 'no' },
    turns: { type: 'string', default: '2' },
    prompt: { type: 'string', default: '2048' },
    tokens: { type: 'string', default: '128' },
    rows: { type: 'string', default: '8' },
    flags: { type: 'string', default: '' },
    alone: { type: 'string', default: 'yes' },
    dtype: { type: 'string', default: 'auto' },
    quick: { type: 'string', default: 'no' },
    cpu: { type: 'string', default: 'no' },
    minutes: { type: 'string', default: '9' },
    /** In the process of one run. */
    run: { type: 'string' },
    out: { type: 'string' },
  },
});
const cpu = args.cpu === 'yes';

/** One of the runs, as its process is told. */
interface Task {
  /** Null for the trained model in float32. */
  size: string | null;
  cards: number;
  sums: 'inside' | 'between';
  layered: boolean;
  /** Of XLA. */
  flags: readonly string[];
  /** A state's file to go on from, and where to leave one. */
  read: string | null;
  write: string;
}

/** What it gave. */
interface Run {
  load_s: number;
  /** The first prompt and tokens: what XLA compiles. */
  first_s: number;
  prompt_ms: number;
  token_ms: number;
  /** Several rows, for each of which there is a token. */
  rows_token_ms: number;
  /** A state to the host and back. */
  state_ms: number;
  /** Whether the logits of a state that came back are those before. */
  state_same: boolean;
  ids: number[][];
  logits: number[][];
}

const SAMPLED: EngineSampling = { ...GREEDY, do_sample: true, temperature: 0.8, top_k: 50 };

async function run({ size, cards, sums, layered, flags, read, write }: Task): Promise<Run> {
  const wide = size === null || args.dtype === 'float32';
  configureRuntime({ tf32: !wide, xlaFlags: flags });
  const begun = performance.now();
  await selectBackend(cpu ? 'cpu' : cards > 1 ? 'gpu' : 'cuda:0');
  const model = size
    ? syntheticModel(size, false, args.layers ? Number(args.layers) : undefined)
    : await Mamba2ForCausalLM.from_pretrained(args.model, { dtype: 'float32' });
  const several = Number(args.rows);
  const batches = size ? [1, several] : [1, 2];
  const options: CompiledEngineOptions = { batches, ...(wide ? { dtype: 'float32' } : {}) };
  const compiled: string[] = [];
  const spread =
    cards > 1
      ? { plan: model.network.tensorParallel(cards), devices: Array.from({ length: cards }, (_, k) => k) }
      : null;
  const engine = new CompiledEngine(
    model.weights,
    {
      ...options,
      ...(spread && { sums }),
      ...(layered ? {} : { layered: false }),
      on_compile: (name, phase, ms) => {
        compiled.push(`${name} ${phase} ${ms === null ? '…' : Math.round(ms)}`);
        if (ms === null || ms > 1000) process.stderr.write(`  ${compiled.at(-1)!} ms\n`);
      },
    },
    spread,
  );
  const length = Number(args.prompt);
  const count = Number(args.tokens);
  const ids = Int32Array.from({ length }, (_, i) => (i * 7919 + 13) % Math.min(engine.vocab_size, 4000));
  const rows = [ids];
  const texts: number[][] = [];
  const logits: number[][] = [];
  const times: { prompt: number; tokens: number }[] = [];
  const load_s = (performance.now() - begun) / 1000;
  for (let time = 0; time < 4; time++) {
    const state = await engine.createState(1);
    const a = performance.now();
    await engine.prefill(state, rows);
    logits[0] = Array.from((await engine.logits(state))[0]!);
    const b = performance.now();
    const [tokens] = await engine.decode(state, count, GREEDY, rows);
    const c = performance.now();
    logits[1] = Array.from((await engine.logits(state))[0]!);
    texts[0] = [...tokens!];
    times.push({ prompt: b - a, tokens: c - b });
    process.stderr.write(`  prompt ${(b - a).toFixed(1)} ms, ${count} tokens ${(c - b).toFixed(1)} ms\n`);
    state.dispose();
  }
  const [first, ...later] = times as [(typeof times)[0], ...typeof times];
  const least = (of: (one: (typeof times)[0]) => number): number => Math.min(...later.map(of));
  const measured = {
    load_s,
    first_s: (first.prompt + first.tokens) / 1000,
    prompt_ms: least(({ prompt }) => prompt),
    token_ms: least(({ tokens }) => tokens) / count,
  };
  if (size && args.quick === 'yes')
    return { ...measured, rows_token_ms: 0, state_ms: 0, state_same: true, ids: texts, logits };
  // by chance, and one token a call
  const drawn = await engine.createState(1);
  await engine.prefill(drawn, [ids.subarray(0, Math.min(30, length))]);
  const uniforms = [Float32Array.from({ length: 20 }, (_, k) => ((k * 37) % 101) / 101)];
  texts.push([...(await engine.decode(drawn, 20, SAMPLED, rows, uniforms))[0]!]);
  await engine.step(drawn, Int32Array.of(7));
  logits.push(Array.from((await engine.logits(drawn))[0]!));
  // a state to the host and back
  const d = performance.now();
  const arrays = await drawn.toArrays();
  const back = await engine.fromArrays(arrays);
  const after = (await engine.logits(back))[0]!;
  const state_ms = performance.now() - d;
  const state_same = after.every((value, i) => value === logits.at(-1)![i]);
  texts.push([...(await engine.decode(back, 8, GREEDY, rows))[0]!]);
  if (!size) {
    await engine.state_files.write(write, { arrays, ids: [[...ids.subarray(0, 30)]], extra: {} });
    // of another run, if there is one
    const other = await engine.fromArrays((await engine.state_files.read(read ?? write)).arrays);
    texts.push([...(await engine.decode(other, 20, GREEDY, rows))[0]!]);
    other.dispose();
  }
  for (const state of [drawn, back]) state.dispose();
  // rows at once, of different lengths
  const many = Array.from({ length: batches[1]! }, (_, i) => ids.subarray(0, Math.min(40, length) - i));
  let rows_token_ms = Infinity;
  for (let time = 0; time < 3; time++) {
    const state = await engine.createState(many.length);
    await engine.prefill(state, many);
    const e = performance.now();
    const made = await engine.decode(state, Math.min(count, 32), GREEDY, many);
    rows_token_ms = Math.min(rows_token_ms, (performance.now() - e) / Math.min(count, 32));
    if (time === 0) texts.push(...made.map((row) => [...row]));
    state.dispose();
  }
  const made = { ...measured, rows_token_ms, state_ms, state_same, ids: texts, logits };
  engine.dispose();
  model.dispose();
  return made;
}

/** The last lines of what a process said. */
const tail = (text: string): string => text.split('\n').filter((line) => !/^\s*(prompt |prefill|greedy|sample|step)/.test(line)).slice(-40).join('\n').slice(-4000); // prettier-ignore

function start(task: Task, out: string): Run | { error: string } {
  fs.rmSync(out, { force: true });
  const own = [fileURLToPath(import.meta.url), ...process.argv.slice(2), '--run', JSON.stringify(task), '--out', out];
  const { status, signal, stderr, stdout } = spawnSync(process.execPath, ['--import', 'tsx', ...own], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    timeout: Number(args.minutes) * 60_000,
    killSignal: 'SIGKILL',
  });
  process.stderr.write(`${JSON.stringify(task)}\n${stderr.slice(-6000)}\n`);
  if (status === 0 && fs.existsSync(out)) return JSON.parse(fs.readFileSync(out, 'utf8')) as Run;
  return { error: `ended with ${status ?? signal}: ${tail(stderr + stdout)}` };
}

if (args.run !== undefined) {
  fs.writeFileSync(args.out!, JSON.stringify(await run(JSON.parse(args.run) as Task)));
  process.exit(0);
} else {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parallel-'));
  const out = path.join(dir, 'run.json');
  const ways = args.sums.split(',') as Task['sums'][];
  const whole = args.whole === 'yes' ? [true, false] : [true];
  const variants = args.flags.split(';').map((flags) => flags.split(' ').filter((flag) => flag !== ''));
  const sizes = [...(args.checks === 'yes' ? [null] : []), ...args.sizes.split(',').filter((size) => size !== '')];
  for (const size of sizes) {
    let alone: Run | null = null;
    for (let turn = 0; turn < (size === null ? 1 : Number(args.turns)); turn++) {
      const one = { size, cards: 1, sums: 'between', layered: true, flags: [], read: null, write: path.join(dir, 'one.safetensors') } as const; // prettier-ignore
      const tasks: Task[] = [
        ...(args.alone === 'yes' ? [one] : []),
        ...ways.flatMap((sums) =>
          whole.flatMap((layered) =>
            variants.map((flags) => ({
              ...{ size, cards: Number(args.cards), sums, layered, flags },
              read: args.alone === 'yes' ? one.write : null,
              write: path.join(dir, `${sums}.safetensors`),
            })),
          ),
        ),
      ];
      for (const task of tasks) {
        const got = start(task, out);
        const about = { size: size ?? args.model, cards: task.cards, ...(task.cards > 1 && { sums: task.sums, layered: task.layered, flags: task.flags }), turn }; // prettier-ignore
        if ('error' in got) {
          console.log(JSON.stringify({ ...about, ...got }));
          continue;
        }
        const { ids, logits, ...own } = got;
        if (task.cards === 1) alone = got;
        const one = alone;
        console.log(
          JSON.stringify({
            ...about,
            ...own,
            ...(one && {
              same_ids: ids.map((row, i) => JSON.stringify(row) === JSON.stringify(one.ids[i])),
              logits_apart: logits.map((row, i) => largestDifference(Float32Array.from(row), Float32Array.from(one.logits[i]!))), // prettier-ignore
              largest_logit: Math.max(...logits[0]!.map(Math.abs)),
              prompt_of_one: own.prompt_ms / one.prompt_ms,
              token_of_one: own.token_ms / one.token_ms,
              rows_token_of_one: own.rows_token_ms / one.rows_token_ms,
            }),
          }),
        );
      }
    }
  }
  fs.rmSync(dir, { recursive: true, force: true });
}
