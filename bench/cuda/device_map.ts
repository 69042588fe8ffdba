/**
 * A model on several GPUs of one machine beside the same on one: ids and logits, and the times of a prompt and of tokens. JSON lines, the first of them of one GPU.
 * `npx tsx bench/cuda/device_map.ts --model DIR` or `--size 2.7b` (random weights), `--maps auto,sequential`, `--limit 10000` (MiB of each GPU),
 * `--dtype float32` for exact comparisons. With `--maps '{"": "cpu:0", "lm_head": "cpu:1"}'` and `--alone cpu` on a processor.
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
import { GREEDY } from '../../src/generation/engine.js';
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
    /** In the process of one map. */
    map: { type: 'string' },
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
  configureRuntime({ tf32: dtype === 'auto', ...(args.limit && { gpuMemoryLimit: Number(args.limit) }) });
  const device_map = mapOf(text);
  const begun = performance.now();
  let model: Mamba2ForCausalLM;
  if (args.size) {
    await selectBackend(selectedFor(mapRequest({ device_map })!));
    model = syntheticModel(args.size, false);
    model.place({ device_map });
  } else model = await Mamba2ForCausalLM.from_pretrained(args.model, { device_map, dtype });
  const engine = await model.engine();
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
    const [tokens] = await engine.decode!(state, count, GREEDY, rows);
    const c = performance.now();
    logits[1] = Array.from((await engine.logits(state))[0]!);
    texts[0] = [...tokens!];
    times.push({ prompt: b - a, tokens: c - b });
    state.dispose();
  }
  // two rows at once, of other lengths
  const two = [ids.subarray(0, Math.min(40, length)), ids.subarray(0, Math.min(17, length))];
  const state = await engine.createState(2);
  await engine.prefill(state, two);
  texts.push(...(await engine.decode!(state, 16, GREEDY, two)).map((row) => [...row]));
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
  model.dispose();
  return made;
}

function start(map: string, out: string): Run {
  const own = [fileURLToPath(import.meta.url), ...process.argv.slice(2), '--map', map, '--out', out];
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', ...own], { stdio: 'inherit' });
  if (status !== 0) throw new Error(`The run of the map ${map} ended with ${status}.`);
  return JSON.parse(fs.readFileSync(out, 'utf8')) as Run;
}

/** Maps that are parted by commas outside of braces. */
const mapsOf = (text: string): string[] => text.match(/\{[^}]*\}|[^,{}]+/g) ?? [];

if (args.map !== undefined) fs.writeFileSync(args.out!, JSON.stringify(await run(args.map)));
else {
  const out = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'maps-')), 'run.json');
  let alone: Run | null = null;
  for (const map of [args.alone, ...mapsOf(args.maps)]) {
    const { ids, logits, ...own } = start(map, out);
    const one = (alone ??= { ids, logits, ...own });
    const differences = logits.map((row, i) =>
      largestDifference(Float32Array.from(row), Float32Array.from(one.logits[i]!)),
    );
    console.log(
      JSON.stringify({
        map,
        ...own,
        same_ids: JSON.stringify(ids) === JSON.stringify(one.ids),
        logits_apart: differences,
        prompt_of_one: own.prompt_ms / one.prompt_ms,
        token_of_one: own.token_ms / one.token_ms,
      }),
    );
  }
  fs.rmSync(path.dirname(out), { recursive: true, force: true });
}
