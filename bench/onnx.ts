/**
 * A peer of the WebGPU steps: one step of the same dimensions as an ONNX graph (peers/onnx_step.ts), by ONNX Runtime's WebGPU provider in Node.js, states kept on the device.
 *
 *   npm run bench -- onnx [--model 130m] [--checkpoint DIR] [--forms float16,int4] [--tokens 128] [--rounds 5] [--providers webgpu] [--ids 5,6,7,100,200] [--software] [--json FILE]
 *
 * Forms: float32 and float16 (numbers and matrices), int4 (float16 numbers, matrices in four bits by blocks of 64), int4-dp4a (the same, and what meets a matrix rounded to int8),
 * int4-float32 (float32 numbers). The graph chooses the token, which is read back at every step, as generation loops do;
 * several steps at once cannot be had: onnxruntime-node cannot read what it left on the device.
 * onnxruntime-node is fetched from npm in the version below, 46 MB that only this needs, unless MAMBA2_BENCH_ONNXRUNTIME names a folder that has it in node_modules.
 * --ids are a prompt of which the eight tokens that follow are told, to compare with those of another library. --software takes Chromium's SwiftShader, which has no float16.
 */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import * as os from 'node:os';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { useSoftwareVulkan } from '../scripts/lib/dawn.js';
import { cacheRoot } from '../src/runtime/index.js';
import { machine } from './machine.js';
import { type OnnxForm, type OnnxState, writeOnnxStep } from './peers/onnx_step.js';
import { provideCheckpoint } from './random_checkpoint.js';
import { markdownTable, spread } from './statistics.js';

const VERSION = '1.30.0';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    model: { type: 'string', default: '130m' },
    checkpoint: { type: 'string' },
    forms: { type: 'string', default: 'float16,int4,int4-dp4a,int4-float32' },
    tokens: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '5' },
    ids: { type: 'string', default: '5,6,7,100,200' },
    providers: { type: 'string', default: 'webgpu' },
    software: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});

const FORMS: Readonly<Record<string, OnnxForm>> = {
  float32: { numbers: 'float32', block: 0, accuracy: 0 },
  float16: { numbers: 'float16', block: 0, accuracy: 0 },
  int4: { numbers: 'float16', block: 64, accuracy: 0 },
  'int4-dp4a': { numbers: 'float16', block: 64, accuracy: 4 },
  'int4-float32': { numbers: 'float32', block: 64, accuracy: 0 },
};

/** What of onnxruntime-node is used. */
interface OrtTensor {
  readonly data: ArrayLike<number | bigint>;
  dispose(): void;
}
interface OrtSession {
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}
interface Ort {
  InferenceSession: { create(file: string, options: object): Promise<OrtSession> };
  Tensor: new (type: string, data: ArrayBufferView, shape: readonly number[]) => OrtTensor;
}

/** The package from npm, unpacked once; its programs for CUDA are not fetched. */
function onnxRuntime(): Ort {
  let folder = process.env['MAMBA2_BENCH_ONNXRUNTIME'] ?? '';
  if (folder === '') {
    folder = path.join(cacheRoot(), 'bench', `onnxruntime-${VERSION}`);
    if (!fs.existsSync(folder)) {
      fs.mkdirSync(`${folder}.part`, { recursive: true });
      const install = [
        'install',
        '--ignore-scripts',
        '--no-save',
        '--prefix',
        `${folder}.part`,
        `onnxruntime-node@${VERSION}`,
      ];
      execFileSync('npm', install, { stdio: 'ignore' });
      fs.renameSync(`${folder}.part`, folder);
    }
  }
  return createRequire(path.join(path.resolve(folder), 'here.js'))('onnxruntime-node') as Ort;
}

const ort = onnxRuntime();

class Steps {
  private past: Record<string, OrtTensor>;

  private constructor(
    private readonly session: OrtSession,
    private readonly states: readonly OnnxState[],
    numbers: OnnxForm['numbers'],
  ) {
    const zeros = (shape: readonly number[]): OrtTensor => {
      const size = shape.reduce((a, b) => a * b, 1);
      return new ort.Tensor(numbers, numbers === 'float16' ? new Uint16Array(size) : new Float32Array(size), shape);
    };
    this.past = Object.fromEntries(states.map(({ name, shape }) => [`past_${name}`, zeros(shape)]));
  }

  static async open(file: string, states: readonly OnnxState[], form: OnnxForm, provider: string) {
    const kept = [...states.map(({ name }) => `present_${name}`), 'logits'];
    const session = await ort.InferenceSession.create(file, {
      executionProviders: [provider],
      logSeverityLevel: 3,
      ...(provider === 'webgpu' && {
        preferredOutputLocation: Object.fromEntries(kept.map((name) => [name, 'gpu-buffer'])),
      }),
    });
    return new Steps(session, states, form.numbers);
  }

  /** Feeds a token and gives the next. */
  async step(id: number): Promise<number> {
    const token = new ort.Tensor('int64', BigInt64Array.of(BigInt(id)), [1, 1]);
    const out = await this.session.run({ ...this.past, token });
    for (const { name } of this.states) {
      this.past[`past_${name}`]!.dispose();
      this.past[`past_${name}`] = out[`present_${name}`]!;
    }
    out['logits']!.dispose();
    return Number(out['next']!.data[0]!);
  }

  close(): Promise<void> {
    return this.session.release();
  }
}

/** Feeds a prompt and writes tokens after it. */
async function write(steps: Steps, prompt: readonly number[], count: number): Promise<number[]> {
  const written: number[] = [];
  for (let i = 0; i < prompt.length + count - 1; i++) {
    const next = await steps.step(prompt[i] ?? written.at(-1)!);
    if (i >= prompt.length - 1) written.push(next);
  }
  return written;
}

const tokens = Number(args.tokens);
if (args.software) useSoftwareVulkan();
const checkpoint = args.checkpoint ?? path.join(cacheRoot(), 'bench', `${args.model}-bfloat16`);
if (!args.checkpoint) await provideCheckpoint({ checkpoint, model: args.model, dtype: 'bfloat16' });
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-onnx-'));
const results = [];
for (const name of args.forms.split(',')) {
  const form = FORMS[name];
  if (!form) throw new Error(`--forms: got '${name}', expected some of ${Object.keys(FORMS).join(', ')}`);
  const file = path.join(folder, `${name}.onnx`);
  const states = await writeOnnxStep(checkpoint, file, form);
  for (const provider of args.providers.split(',')) {
    try {
      const steps = await Steps.open(file, states, form, provider);
      const ids = await write(steps, args.ids.split(',').map(Number), 8);
      process.stderr.write(`${name} on ${provider}: after ${args.ids} it writes ${ids.join()}\n`);
      const figures: number[] = [];
      for (let round = 0; round < Number(args.rounds); round++) {
        const start = performance.now();
        await write(steps, [1], tokens);
        figures.push((tokens * 1000) / (performance.now() - start));
      }
      await steps.close();
      results.push({ form: name, provider, figures, ...spread(figures) });
    } catch (error) {
      process.stderr.write(`${name} on ${provider}: ${String(error)}\n`);
    }
  }
  fs.rmSync(file);
}
fs.rmSync(folder, { recursive: true, force: true });

const shown = results.map(({ form, provider, median, min, max }) => [
  ...[form, provider, median.toFixed(1), `${min.toFixed(1)}–${max.toFixed(1)}`],
]);
process.stdout.write(
  `${args.model}, ${tokens} tokens of one row, medians of ${args.rounds} rounds; onnxruntime-node ${VERSION}, Node ${process.version}\n\n` +
    `${markdownTable(['weights', 'provider', 'tokens/s', 'least–most'], shown)}\n`,
);
if (args.json) {
  const work = { model: args.model, tokens, rounds: Number(args.rounds) };
  fs.writeFileSync(
    `${args.json}.part`,
    `${JSON.stringify({ ...machine(), onnxruntime: VERSION, work, results }, null, 2)}\n`,
  );
  fs.renameSync(`${args.json}.part`, args.json);
}
