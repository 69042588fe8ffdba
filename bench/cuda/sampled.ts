/**
 * Text of the trained model sampled with one seed on a CPU and on a GPU, in float32 without TF32 and in bfloat16: how many tokens agree, how far the
 * logits are apart where the texts part, and whether that difference explains the parting. JSON lines.
 * `npx tsx bench/cuda/sampled.ts --tokens 200 --seeds 3`
 *
 * Each device is a process of its own: TensorFlow takes one. A token is the first whose running sum of probabilities exceeds the step's random number.
 * Texts may part where the two devices' sums lie on either side of that number. It is rounding if the logits differ as rounding makes them differ
 * and each token follows from its device's own logits; else something is wrong.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { generate } from '../../src/generation/generate.js';
import { RandomStream } from '../../src/generation/random.js';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import type { ProgramDtype } from '../../src/engine/compiled/decoding_program.js';
import { configureRuntime, selectBackend } from '../../src/runtime/index.js';
import { largestDifference } from '../../test/support/compare.js';
import { loadGolden } from '../../test/support/goldens.js';

const { values: args } = parseArgs({
  options: {
    tokens: { type: 'string', default: '200' },
    seeds: { type: 'string', default: '3' },
    /** In the process of one device. */
    device: { type: 'string' },
    out: { type: 'string' },
  },
});
const TOKENS = Number(args.tokens);
const SEEDS = Array.from({ length: Number(args.seeds) }, (_, i) => 7 + i);
const DTYPES: ProgramDtype[] = ['float32', 'bfloat16'];

/** What one device wrote, and its logits before each of these tokens. */
interface Text {
  dtype: ProgramDtype;
  seed: number;
  tokens: number[];
  logits: number[][];
}

async function write(device: 'cpu' | 'auto', out: string): Promise<void> {
  configureRuntime({ tf32: false });
  const report = await selectBackend(device);
  const prompt = (loadGolden('books-model').json.runs as { prompt_ids: number[] }[])[0]!.prompt_ids;
  const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2');
  const texts: Text[] = [];
  for (const dtype of DTYPES) {
    const engine = new CompiledEngine(model.weights, { dtype });
    for (const seed of SEEDS) {
      const options = {
        input_ids: [prompt],
        do_sample: true,
        temperature: 1,
        top_k: 0,
        top_p: 1,
        seed,
        max_new_tokens: TOKENS,
      };
      const tokens = [...(await generate(engine, model.generation_config, options)).new_tokens[0]!];
      const logits: number[][] = [];
      const state = await engine.createState(1);
      await engine.prefill(state, [Int32Array.from(prompt)]);
      for (const token of tokens) {
        logits.push([...(await engine.logits(state))[0]!]);
        await engine.step(state, Int32Array.of(token));
      }
      state.dispose();
      texts.push({ dtype, seed, tokens, logits });
    }
    engine.dispose();
  }
  fs.writeFileSync(out, JSON.stringify({ gpu: report.gpu.names[0] ?? null, using_gpu: report.gpu.used, texts }));
  process.exit(0);
}

/** Share of the probability that lies at the tokens before `token`. */
function massBefore(logits: readonly number[], token: number): number {
  const top = Math.max(...logits);
  let before = 0;
  let all = 0;
  logits.forEach((v, i) => {
    const mass = Math.exp(v - top);
    all += mass;
    if (i < token) before += mass;
  });
  return before / all;
}

function parting(a: Text, b: Text): Record<string, unknown> {
  const longest = Math.min(a.tokens.length, b.tokens.length);
  const found = a.tokens.findIndex((token, i) => token !== b.tokens[i]);
  const at = found < 0 || found >= longest ? longest : found;
  const near = Array.from(
    { length: Math.min(at + 1, longest) },
    (_, i) => largestDifference(a.logits[i]!, b.logits[i]!).difference,
  );
  const result = { same_tokens: `${at}/${longest}`, largest_difference: Math.max(...near) };
  if (at === longest) return result;
  const stream = new RandomStream(a.seed, 0);
  let uniform = 0;
  for (let i = 0; i <= at; i++) uniform = stream.uniform();
  const border = Math.min(a.tokens[at]!, b.tokens[at]!) + 1;
  return {
    ...result,
    difference_there: near[at],
    tokens_there: [a.tokens[at], b.tokens[at]],
    sums_apart: Math.abs(massBefore(a.logits[at]!, border) - massBefore(b.logits[at]!, border)),
    follow_from_logits: [a, b].map(({ tokens, logits }) => follows(logits[at]!, tokens[at]!, uniform)),
  };
}

/** Whether `token` is the first whose running sum exceeds the random number, but for rounding of the sums to float32. */
function follows(logits: readonly number[], token: number, uniform: number): boolean {
  const rounding = 2 ** -21;
  return massBefore(logits, token) <= uniform + rounding && massBefore(logits, token + 1) > uniform - rounding;
}

function compareDevices(): void {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sampled-'));
  const read = (device: string): { gpu: string | null; using_gpu: boolean; texts: Text[] } => {
    const out = path.join(dir, device);
    const command = [
      '--import',
      'tsx',
      fileURLToPath(import.meta.url),
      '--tokens',
      args.tokens,
      '--seeds',
      args.seeds,
      '--device',
      device,
      '--out',
      out,
    ];
    const { status } = spawnSync(process.execPath, command, { stdio: ['ignore', 'inherit', 'inherit'] });
    if (status !== 0) throw new Error(`the process of ${device} ended with ${status}`);
    return JSON.parse(fs.readFileSync(out, 'utf8')) as never;
  };
  try {
    const [cpu, auto] = [read('cpu'), read('auto')];
    const pairs: [string, Text[], Text[]][] = [
      [
        'CPU float32, other device float32',
        cpu.texts.filter((t) => t.dtype === 'float32'),
        auto.texts.filter((t) => t.dtype === 'float32'),
      ],
      [
        'CPU bfloat16, other device bfloat16',
        cpu.texts.filter((t) => t.dtype === 'bfloat16'),
        auto.texts.filter((t) => t.dtype === 'bfloat16'),
      ],
      [
        'CPU float32, CPU bfloat16',
        cpu.texts.filter((t) => t.dtype === 'float32'),
        cpu.texts.filter((t) => t.dtype === 'bfloat16'),
      ],
    ];
    for (const [pair, left, right] of pairs)
      left.forEach((text, i) =>
        console.log(
          JSON.stringify({
            what: 'sampled text',
            gpu: auto.gpu,
            using_gpu: auto.using_gpu,
            pair,
            seed: text.seed,
            ...parting(text, right[i]!),
          }),
        ),
      );
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

if (args.device && args.out) await write(args.device as 'cpu' | 'auto', args.out);
else compareDevices();
