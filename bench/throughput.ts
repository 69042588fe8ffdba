/**
 * Tokens per second of a queue of prompts, by batch size: prompts of uneven lengths, sorted by length as the pipeline
 * sorts them, greedy. Before the clock starts every batch has run for two tokens, so that all that it needs is compiled.
 * (llama.cpp beside it: `npm run bench -- decode --rows 8 --peers compiled,BF16`.) `npx tsx bench/throughput.ts DIR [prompts 64] [new tokens 32] [batch sizes 1,8] [dtype]`
 */
import { generate, GenerationConfig, type GenerationEngine } from '../src/generation/index.js';
import { AutoModelForCausalLM } from '../src/models/auto/index.js';

const [dir, prompts = '64', newTokens = '32', sizes = '1,8', dtype] = process.argv.slice(2);
if (!dir) throw new Error('usage: npx tsx bench/throughput.ts DIR [prompts] [new tokens] [batch sizes] [dtype]');

const model = await AutoModelForCausalLM.from_pretrained(dir, { dtype } as never);
const engine = await model.engine();
const max_new_tokens = Number(newTokens);
const queue = Array.from({ length: Number(prompts) }, (_, i) =>
  Array.from({ length: 5 + ((i * 7) % 44) }, (_, k) => 2 + ((i * 31 + k * 17) % (engine.vocab_size - 2))),
).sort((a, b) => b.length - a.length);

/** Runs the queue in batches; returns the new tokens of each prompt. */
async function run(
  engine: GenerationEngine,
  rows: number[][],
  size: number,
  count = max_new_tokens,
): Promise<number[][]> {
  const config = new GenerationConfig({ max_new_tokens: count });
  const out: number[][] = [];
  for (let at = 0; at < rows.length; at += size) {
    out.push(...(await generate(engine, config, { input_ids: rows.slice(at, at + size) })).new_tokens);
  }
  return out;
}

const outputs: number[][][] = [];
let first = 0;
for (const size of sizes.split(',').map(Number)) {
  await run(engine, queue, size, 2);
  const started = performance.now();
  const out = await run(engine, queue, size);
  const seconds = (performance.now() - started) / 1000;
  const speed = (queue.length * max_new_tokens) / seconds;
  first ||= speed;
  outputs.push(out);
  console.log(
    `batch ${size}: ${speed.toFixed(1)} tokens per second (${(speed / first).toFixed(2)} times the first), ` +
      `${engine.kind} engine, ${seconds.toFixed(1)} s`,
  );
}
// In float32 all are the same. Bfloat16 sums round otherwise in other shapes, and near ties then fall otherwise.
const same = queue.filter((_, i) => outputs.every((out) => out[i]!.join() === outputs[0]![i]!.join())).length;
console.log(`${same} of ${queue.length} prompts got the same tokens in every batch size`);
model.dispose();
