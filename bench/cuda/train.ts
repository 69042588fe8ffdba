/**
 * Speed of the compiled training step (forward, gradients, clipping, AdamW) on one device, as JSON lines.
 * `npx tsx bench/cuda/train.ts --model 130m --batch 8 --length 2048 --steps 8`; with `--data-parallel 2 --batch 16` on two cards;
 * `--lora 16` trains adapters of that rank over random bfloat16 weights: `--model 7b --lora 16 --batch 2 --length 512`
 */
import { parseArgs } from 'node:util';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { get_peft_model } from '../../src/peft/index.js';
import { selectBackend } from '../../src/runtime/index.js';
import { prepareBatch } from '../../src/training/batch.js';
import { createStep } from '../../src/training/create_step.js';
import { trainableOf } from '../../src/training/trainable.js';
import { publicConfig } from '../random_checkpoint.js';
import { gpuMemoryMb } from './memory.js';
import { syntheticModel } from './synthetic.js';

const { values: args } = parseArgs({
  options: {
    model: { type: 'string', default: '130m' },
    batch: { type: 'string', default: '8' },
    length: { type: 'string', default: '2048' },
    layers: { type: 'string' },
    steps: { type: 'string', default: '8' },
    float32: { type: 'boolean', default: false },
    checkpointing: { type: 'boolean', default: false },
    'data-parallel': { type: 'string', default: '1' },
    lora: { type: 'string' },
    device: { type: 'string', default: 'auto' },
  },
});
const report = await selectBackend(args.device as 'auto');
const [b, t] = [Number(args.batch), Number(args.length)];
const layers = args.layers === undefined ? undefined : Number(args.layers);
const config = publicConfig(args.model, layers);
const rank = Number(args.lora ?? 0);
const base = rank > 0 ? syntheticModel(args.model, false, layers) : new Mamba2ForCausalLM(config);
const adapters = { r: rank, lora_alpha: 2 * rank, target_modules: ['in_proj', 'out_proj'] };
const model = rank > 0 ? get_peft_model(base, adapters, { seed: 3 }) : base;
const rows = Array.from({ length: b }, (_, i) =>
  Array.from({ length: t }, (_, j) => (i * 7919 + j * 37 + (j % 11) * i) % config.vocab_size),
);
const batch = prepareBatch({ input_ids: rows, labels: rows }, config.vocab_size);
const step = createStep(trainableOf(model), {
  bf16: !args.float32,
  gradient_checkpointing: args.checkpointing,
  weight_decay: 0.01,
  max_grad_norm: 1,
  replicas: { data_parallel: Number(args['data-parallel']), rows: b },
});
const ms: number[] = [];
const losses: number[] = [];
for (let i = 0; i < Number(args.steps); i++) {
  const start = performance.now();
  losses.push((await step.step([batch], 1e-4, i)).loss);
  ms.push(performance.now() - start);
}
const middle = [...ms.slice(1)].sort((x, y) => x - y)[Math.floor((ms.length - 1) / 2)]!;
console.log(
  JSON.stringify({
    model: args.model,
    what: rank > 0 ? `training step of adapters of rank ${rank}` : 'training step',
    batch: b,
    data_parallel: Number(args['data-parallel']),
    length: t,
    bf16: !args.float32,
    gpu: report.gpu.names[0] ?? null,
    first_ms: ms[0],
    ms: ms.slice(1),
    tok_s: (b * t * 1000) / middle,
    losses,
    rss_mb: Math.round(process.memoryUsage().rss / 1e6),
    memory_mb: gpuMemoryMb(),
  }),
);
process.exit(0);
