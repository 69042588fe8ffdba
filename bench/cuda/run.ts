/**
 * Speed of the compiled engine on one device, as JSON lines: load, compile, prefill, decoding with one call a token and
 * in blocks, and batches. `npx tsx bench/cuda/run.ts --model 130m --dtype bfloat16 --prompt 2048 --block 64 --batches 1,8`
 */
import { parseArgs } from 'node:util';
import { GREEDY } from '../../src/generation/engine.js';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import type { ProgramDtype } from '../../src/engine/compiled/decoding_program.js';
import type { StateDtype } from '../../src/engine/compiled/program_states.js';
import { quantizeWeights } from '../../src/engine/quantized_weights.js';
import { Int4WeightOnlyConfig } from '../../src/quant/index.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { configureRuntime, selectBackend } from '../../src/runtime/index.js';
import { gpuMemoryMb } from './memory.js';
import { syntheticModel } from './synthetic.js';

const { values: args } = parseArgs({
  options: {
    model: { type: 'string', default: '130m' },
    dtype: { type: 'string', default: 'bfloat16' },
    prompt: { type: 'string', default: '2048' },
    tokens: { type: 'string', default: '256' },
    block: { type: 'string', default: '64' },
    batches: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '5' },
    device: { type: 'string', default: 'auto' },
    chunk: { type: 'string' },
    state: { type: 'string', default: 'float32' },
    dir: { type: 'string' },
    int4: { type: 'boolean', default: false },
    layers: { type: 'string' },
    whole: { type: 'boolean', default: false }, // prompts in one program, not one a layer
    'only-blocks': { type: 'boolean', default: false },
    cache: { type: 'boolean', default: false }, // programs and graphs are kept in the cache folder, and taken from there
  },
});
const number = (key: 'prompt' | 'tokens' | 'block' | 'rounds'): number => Number(args[key]);
const median = (xs: number[]): number => [...xs].sort((a, b) => a - b)[Math.floor(xs.length / 2)]!;
const print = (record: Record<string, unknown>): void =>
  console.log(
    JSON.stringify({
      model: args.model,
      dtype: args.dtype,
      state: args.state,
      ...(args.int4 && { int4: true }),
      ...(args.whole && { whole: true }),
      ...(args.cache && { cache: true }),
      ...(args.layers && { layers: Number(args.layers) }),
      ...record,
    }),
  );
if (args.cache) configureRuntime({ compileCache: true });
const report = await selectBackend(args.device as 'auto');
print({ device: report });
/** A checkpoint of this machine, quantised if asked for. */
async function open(dir: string): Promise<Mamba2ForCausalLM> {
  const { config, source } = await loadCheckpoint(dir);
  const model = new Mamba2ForCausalLM(config, source);
  if (args.int4) {
    const scheme = new Int4WeightOnlyConfig({
      group_size: 128,
      include_input_output_embeddings: true,
    });
    await quantizeWeights(model.weights, scheme);
  }
  return model;
}

const prompt = number('prompt');
const rounds = number('rounds');
const batches = args.batches.split(',').map(Number);
let compileMs: Record<string, number> = {};
const layers = args.layers === undefined ? undefined : Number(args.layers);
const model = args.dir ? await open(args.dir) : syntheticModel(args.model, args.int4, layers);
const { config } = model;
const engine = new CompiledEngine(model.weights, {
  dtype: args.dtype as ProgramDtype,
  batches,
  segments: [Math.max(16, Math.min(prompt, 2048))],
  block: number('block'),
  chunk_size: args.chunk === undefined ? undefined : Number(args.chunk),
  state_dtype: args.state as StateDtype,
  ...(args.whole && { layered: false }),
  on_compile: (name, phase, ms) => void (ms !== null && (compileMs[`${name} ${phase}`] = Math.round(ms))),
});
for (const b of batches) {
  const ids = Int32Array.from({ length: prompt }, (_, i) => (i * 37) % config.vocab_size);
  const state = await engine.createState(b);
  const rows = Array.from({ length: b }, () => ids);
  const timed = async (work: () => Promise<unknown>): Promise<number> => {
    const start = performance.now();
    await work();
    return performance.now() - start;
  };
  if (prompt > 0) {
    // prefill waits for the device; the logits of the last position, which it computes, stay there
    const run = (): Promise<void> => engine.prefill(state, rows);
    const first = await timed(run);
    const ms: number[] = [];
    for (let r = 0; r < rounds; r++) ms.push(await timed(run));
    print({ batch: b, what: 'prefill', tokens: prompt, first_ms: first, ms, tok_s: (b * prompt * 1000) / median(ms) });
  } else {
    await engine.step(state, new Int32Array(b));
  }
  const decode = (count: number): Promise<number> => timed(() => engine.decode(state, count, GREEDY, []));
  if (!args['only-blocks']) {
    await decode(1);
    const single: number[] = [];
    for (let r = 0; r < rounds; r++) {
      let ms = 0;
      for (let k = 0; k < 32; k++) ms += await decode(1);
      single.push(ms / 32);
    }
    print({ batch: b, what: 'decode, a call a token', ms_token: single, tok_s: (b * 1000) / median(single) });
  }
  const block = number('block');
  if (block > 1) {
    await decode(block);
    const blocks: number[] = [];
    const count = Math.ceil(number('tokens') / block) * block;
    for (let r = 0; r < rounds; r++) blocks.push((await decode(count)) / count);
    print({ batch: b, what: `decode, blocks of ${block}`, ms_token: blocks, tok_s: (b * 1000) / median(blocks) });
  }
  print({
    batch: b,
    what: 'compile',
    ms: compileMs,
    rss_mb: Math.round(process.memoryUsage().rss / 1e6),
    memory_mb: gpuMemoryMb(), // what is taken stays taken: the most until here
  });
  state.dispose();
  compileMs = {};
}
engine.dispose();
model.dispose();
process.exit(0);
