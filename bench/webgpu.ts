/**
 * Tokens per second of the prepared steps of WebGPU, in Node.js by Dawn, on weights of random values: the kernels of a page without the page.
 *
 *   npm run bench -- webgpu [--model 130m] [--dtype bfloat16,int4] [--tokens 128] [--block 16] [--batch 1] [--rounds 5] [--software] [--json FILE]
 *
 * --software takes Chromium's SwiftShader in place of the machine's own driver; VK_ICD_FILENAMES names any other. --block is how many tokens of a row are read back at once;
 * --batch, rows that are decoded together: tokens a second are those of all of them.
 */
import * as fs from 'node:fs';
import { parseArgs } from 'node:util';
import { dawnGpu } from '../scripts/lib/dawn.js';
import type { MatrixFormat } from '../src/kernels/webgpu/formats.js';
import { rowBytes } from '../src/kernels/webgpu/formats.js';
import { type GpuBinding, GpuBuffers, type GpuDevice } from '../src/kernels/webgpu/gpu.js';
import { boundMatrix, type GpuMatrix } from '../src/kernels/webgpu/matrices.js';
import { widths } from '../src/kernels/webgpu/recurrence.js';
import { DecodingSteps, type StepSizes, type StepWeights } from '../src/kernels/webgpu/steps.js';
import { machine } from './machine.js';
import { publicConfig } from './random_checkpoint.js';
import { markdownTable, spread } from './statistics.js';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    model: { type: 'string', default: '130m' },
    dtype: { type: 'string', default: 'bfloat16,int4' },
    tokens: { type: 'string', default: '128' },
    block: { type: 'string', default: '16' },
    batch: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '5' },
    software: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});

const FORMATS: Readonly<Record<string, MatrixFormat>> = {
  float32: { kind: 'float32' },
  bfloat16: { kind: 'bfloat16' },
  int8: { kind: 'int8' },
  int4: { kind: 'int4', groupSize: 64 },
};

/** Random numbers of a deviation, read at shifting offsets: fresh ones for all weights would take minutes. */
const POOL = 1 << 20;
const pool = Float32Array.from({ length: POOL }, () => 2 * Math.random() - 1);
let place = 0;

function numbers(count: number, spread: number): Float32Array {
  const values = new Float32Array(count);
  for (let at = 0; at < count; at += POOL) {
    const from = (place = (place + 7919) % 4096);
    values.set(pool.subarray(from, Math.min(POOL, from + count - at)), at);
  }
  return values.map((value) => value * spread);
}

/** A matrix whose weights have a deviation of about 0.02. */
function randomMatrix(buffers: GpuBuffers, format: MatrixFormat, out: number, inner: number): GpuMatrix {
  const most = buffers.device.limits.maxStorageBufferBindingSize;
  const bytes = rowBytes(format, inner, out);
  if (format.kind === 'float32') return boundMatrix(format, [out, inner], most, { values: buffers.filled(numbers(out * inner, 0.04)) }); // prettier-ignore
  if (format.kind === 'bfloat16') {
    const halves = new Uint16Array(numbers(out * inner, 0.04).buffer).filter((_, i) => i % 2 === 1);
    return boundMatrix(format, [out, inner], most, { values: buffers.filled(halves) });
  }
  const codes = new Uint8Array(numbers(Math.ceil(bytes.values / 4), 1).buffer);
  const [width, scale] = format.kind === 'int4' ? [2, 0.005] : [1, 0.0003];
  const levels = new Float32Array(bytes.levels / 4).map((_, i) => (i % width === 0 ? scale : 0));
  return boundMatrix(format, [out, inner], most, { values: buffers.filled(codes), levels: buffers.filled(levels) });
}

function randomWeights(buffers: GpuBuffers, format: MatrixFormat, sizes: StepSizes, layers: number): StepWeights {
  const { hidden, heads, vocabulary, taps } = sizes;
  const { inner, channels } = widths(sizes);
  const filled = (values: Float32Array): GpuBinding => ({ buffer: buffers.filled(values) });
  const ones = (count: number): GpuBinding => filled(new Float32Array(count).fill(1));
  const embedding = randomMatrix(buffers, format, vocabulary, hidden);
  return {
    ...{ embedding, head: embedding, gamma: ones(hidden) },
    layers: Array.from({ length: layers }, () => ({
      ...{ gamma: ones(hidden), normGamma: ones(inner) },
      inProj: randomMatrix(buffers, format, inner + channels + heads, hidden),
      outProj: randomMatrix(buffers, format, hidden, inner),
      ...{ taps: filled(numbers(channels * taps, 0.5)), bias: filled(numbers(channels, 0.1)) },
      heads: filled(Float32Array.from({ length: 3 * heads }, (_, i) => (i < heads ? -4 : i < 2 * heads ? Math.log(1 + i - heads) : 1))), // prettier-ignore
    })),
  };
}

/** Tokens per second, round by round. */
async function measure(device: GpuDevice, format: MatrixFormat) {
  const config = publicConfig(args.model);
  const { hidden_size: hidden, num_heads: heads, head_dim: headDim, n_groups: groups, state_size: stateSize } = config;
  const sizes: StepSizes = {
    ...{ hidden, heads, headDim, groups, stateSize, vocabulary: config.vocab_size, epsilon: config.layer_norm_epsilon },
    ...{ normGroups: groups, taps: config.conv_kernel, convolutionBias: true, limit: [0, Infinity] },
  };
  const buffers = new GpuBuffers(device);
  const [tokens, block, batch] = [Number(args.tokens), Number(args.block), Number(args.batch)];
  const steps = new DecodingSteps(
    device,
    sizes,
    randomWeights(buffers, format, sizes, config.num_hidden_layers),
    batch,
  );
  const greedy = { temperature: 1, topK: 0, removed: [], ends: [], pad: 0 };
  const run = async (count: number): Promise<void> => {
    for (let at = 0; at < count; at += block) {
      const ids = await steps.decode(Math.min(block, count - at), greedy);
      if (ids.some((row) => row.some((id) => id < 0))) throw new Error('scores are no numbers');
    }
  };
  await steps.ready;
  steps.feed(new Int32Array(batch).fill(1));
  await run(Math.min(block, tokens));
  const figures: number[] = [];
  for (let round = 0; round < Number(args.rounds); round++) {
    const start = performance.now();
    await run(tokens);
    figures.push((batch * tokens * 1000) / (performance.now() - start));
  }
  const { dispatches } = steps;
  steps.dispose();
  buffers.dispose();
  return { figures, dispatches };
}

const adapter = await (await dawnGpu(args.software))?.requestAdapter();
if (!adapter) {
  process.stderr.write('There is no WebGPU: Vulkan finds no driver. --software takes the one that Chromium brings.\n');
  process.exit(2);
}
const device = await adapter.requestDevice();
const { vendor, architecture, description } = adapter.info;
const results = [];
for (const name of args.dtype.split(',')) {
  const format = FORMATS[name];
  if (!format) throw new Error(`--dtype: got '${name}', expected some of ${Object.keys(FORMATS).join(', ')}`);
  const { figures, dispatches } = await measure(device, format);
  results.push({ dtype: name, dispatches, figures, ...spread(figures) });
}
device.destroy();

const about = { ...machine(), adapter: { vendor, architecture, description } };
const shown = results.map(({ dtype, dispatches, median, min, max }) => [
  ...[dtype, median.toFixed(1), `${min.toFixed(1)}–${max.toFixed(1)}`, String(dispatches)],
]);
process.stdout.write(
  `${args.model}, ${args.batch} rows, ${args.tokens} tokens of each in blocks of ${args.block}, medians of ${args.rounds} rounds; ${description || vendor}, Node ${about.node}\n\n` +
    `${markdownTable(['weights', 'tokens/s', 'least–most', 'dispatches a token'], shown)}\n`,
);
if (args.json) {
  const work = { model: args.model, tokens: Number(args.tokens), block: Number(args.block), batch: Number(args.batch) };
  fs.writeFileSync(
    `${args.json}.part`,
    `${JSON.stringify({ ...about, work, rounds: Number(args.rounds), results }, null, 2)}\n`,
  );
  fs.renameSync(`${args.json}.part`, args.json);
}
