/**
 * A model on several GPUs of one machine beside the same on one: ids and logits, and the times of a prompt and of tokens. JSON lines, the first of them of one GPU.
 * `npx tsx bench/cuda/device_map.ts --model DIR` or `--size 2.7b` (random weights), `--maps auto,sequential`, `--limit 10000` (MiB of each GPU),
 * `--dtype float32` for exact comparisons, `--pieces 128,256` for other lengths of pieces of a prompt, `--sums between` for the other way of telling one another
 * the stream, `--turns 2` for all of it twice, `--flags '--xla_…'` for XLA. With `--maps '{"": "cpu:0", "lm_head": "cpu:1"}'` and `--alone cpu` on a processor.
 *
 * Each map is a process of its own: a GPU that is asked for alone is the only one that TensorFlow sees.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { DeviceMap } from '../../src/base/devices.js';
import { type EngineSampling, GREEDY } from '../../src/generation/engine.js';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import { mapRequest, selectedFor } from '../../src/engine/placement/request.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { configureRuntime, selectBackend } from '../../src/runtime/index.js';
import { largestDifference } from '../../test/support/compare.js';
import { syntheticModel } from './synthetic.js';

const { values: args } = parseArgs({
  options: {
    model: { type: 'string', default: 'models/tiny-books-mamba2' },
    size: { type: 'string' },
    maps: { type: 'string', default: 'auto' },
    alone: { type: 'string', default: '0' },
    dtype: { type: 'string', default: 'auto' },
    limit: { type: 'string' },
    prompt: { type: 'string', default: '2048' },
    tokens: { type: 'string', default: '128' },
    pieces: { type: 'string', default: '' },
    sums: { type: 'string', default: '' },
    turns: { type: 'string', default: '1' },
    flags: { type: 'string', default: '' },
    rows: { type: 'string', default: 'yes' },
    minutes: { type: 'string', default: '7' },
    /** In the process of one map. */
    map: { type: 'string' },
    piece: { type: 'string' },
    sum: { type: 'string' },
    out: { type: 'string' },
  },
});

/** What a map gave. */
interface Run {
  hf_device_map: Record<string, unknown>;
  load_s: number;
  first_s: number;
  prompt_ms: number;
  token_ms: number;
  ids: number[][];
  logits: number[][];
}

const mapOf = (text: string): DeviceMap =>
  /^-?\d+$/.test(text) ? Number(text) : text.startsWith('{') ? (JSON.parse(text) as DeviceMap) : (text as DeviceMap);

async function run(text: string): Promise<Run> {
  const dtype = args.dtype as 'auto';
  const xlaFlags = args.flags.split(' ').filter((flag) => flag !== '');
  configureRuntime({ tf32: dtype === 'auto', xlaFlags, ...(args.limit && { gpuMemoryLimit: Number(args.limit) }) });
  const device_map = mapOf(text);
  const begun = performance.now();
  let model: Mamba2ForCausalLM;
  if (args.size) {
    await selectBackend(selectedFor(mapRequest({ device_map })!));
    model = syntheticModel(args.size, false);
    model.place({ device_map });
  } else model = await Mamba2ForCausalLM.from_pretrained(args.model, { device_map, dtype });
  // as model.engine() makes it, with options of its own
  const engine = new CompiledEngine(
    model.weights,
    {
      dtype,
      ...(args.piece && { piece: Number(args.piece) }),
      ...(args.sum && { sums: args.sum as 'inside' }),
      on_compile: (name, phase, ms) => {
        if (ms === null || ms > 1000)
          process.stderr.write(`  ${name} ${phase} ${ms === null ? '…' : Math.round(ms)}\n`);
      },
    },
    model['spread'],
  );
  const load_s = (performance.now() - begun) / 1000;
  const length = Number(args.prompt);
  const count = Number(args.tokens);
  const ids = Int32Array.from({ length }, (_, i) => (i * 7919 + 13) % Math.min(engine.vocab_size, 4000));
  const rows = [ids];
  const texts: number[][] = [];
  const logits: number[][] = [];
  const times: { prompt: number; tokens: number }[] = [];
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
    state.dispose();
  }
  // two rows at once, of other lengths
  if (args.rows === 'yes') {
    const two = [ids.subarray(0, Math.min(40, length)), ids.subarray(0, Math.min(17, length))];
    const state = await engine.createState(2);
    await engine.prefill(state, two);
    texts.push(...(await engine.decode(state, 16, GREEDY, two)).map((row) => [...row]));
    // by chance
    const uniforms = [0, 1].map((i) => Float32Array.from({ length: 16 }, (_, k) => ((k * 37 + i * 11) % 101) / 101));
    const drawn: EngineSampling = { ...GREEDY, do_sample: true, temperature: 0.8, top_k: 50 };
    texts.push(...(await engine.decode(state, 16, drawn, two, uniforms)).map((row) => [...row]));
    state.dispose();
  }
  const [first, ...later] = times as [(typeof times)[0], ...typeof times];
  const least = (of: (one: (typeof times)[0]) => number): number => Math.min(...later.map(of));
  const made = {
    hf_device_map: { ...model.hf_device_map },
    load_s,
    first_s: (first.prompt + first.tokens) / 1000,
    prompt_ms: least(({ prompt }) => prompt),
    token_ms: least(({ tokens }) => tokens) / count,
    ids: texts,
    logits,
  };
  engine.dispose();
  model.dispose();
  return made;
}

/** How a map is run. */
interface Way {
  map: string;
  piece?: string;
  sum?: string;
}

function start({ map, piece, sum }: Way, out: string): Run | { error: string } {
  fs.rmSync(out, { force: true });
  const own = [fileURLToPath(import.meta.url), ...process.argv.slice(2), '--map', map, '--out', out];
  if (piece) own.push('--piece', piece);
  if (sum) own.push('--sum', sum);
  const { status, signal, stderr } = spawnSync(process.execPath, ['--import', 'tsx', ...own], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    timeout: Number(args.minutes) * 60_000,
    killSignal: 'SIGKILL',
  });
  if (status === 0 && fs.existsSync(out)) return JSON.parse(fs.readFileSync(out, 'utf8')) as Run;
  return { error: `ended with ${status ?? signal}: ${stderr.slice(-3000)}` };
}

/** Maps that are parted by commas outside of braces. */
const mapsOf = (text: string): string[] => text.match(/\{[^}]*\}|[^,{}]+/g) ?? [];

if (args.map !== undefined) fs.writeFileSync(args.out!, JSON.stringify(await run(args.map)));
else {
  const out = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'maps-')), 'run.json');
  let alone: Run | null = null;
  const parted = (text: string): (string | undefined)[] => (text === '' ? [undefined] : text.split(','));
  const ways: Way[] = mapsOf(args.maps).flatMap((map) =>
    parted(args.sums).flatMap((sum) => parted(args.pieces).map((piece) => ({ map, piece, sum }))),
  );
  for (let turn = 0; turn < Number(args.turns); turn++)
    for (const way of [...(args.alone === 'no' ? [] : [{ map: args.alone }]), ...ways]) {
      const got = start(way, out);
      const about = { size: args.size ?? args.model, ...way, limit: args.limit, turn };
      if ('error' in got) {
        console.log(JSON.stringify({ ...about, ...got }));
        continue;
      }
      const { ids, logits, hf_device_map, ...own } = got;
      if (way.map === args.alone) alone = got;
      const one = alone;
      const apart = (row: number[], i: number): number =>
        largestDifference(Float32Array.from(row), Float32Array.from(one!.logits[i]!)).difference;
      console.log(
        JSON.stringify({
          ...about,
          // of a map of two: the first module of the second device says where it begins
          modules: Object.entries(hf_device_map).filter(([, device], i, all) => device !== all[i - 1]?.[1]),
          ...own,
          ...(one && {
            same_ids: ids.map((row, i) => JSON.stringify(row) === JSON.stringify(one.ids[i])),
            logits_apart: logits.map(apart),
            prompt_of_one: own.prompt_ms / one.prompt_ms,
            token_of_one: own.token_ms / one.token_ms,
          }),
        }),
      );
    }
  fs.rmSync(path.dirname(out), { recursive: true, force: true });
}
