/**
 * How far logits on one device are from golden values, by type and settings, as JSON lines: eager and compiled, prompts and steps.
 * `npx tsx bench/cuda/differences.ts` (NVIDIA_TF32_OVERRIDE=0 for exact float32)
 */
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import type { ProgramDtype } from '../../src/engine/compiled/decoding_program.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { selectBackend } from '../../src/runtime/index.js';
import { largestDifference } from '../../test/support/compare.js';
import { loadGolden } from '../../test/support/goldens.js';

const report = await selectBackend('auto');
const settings = {
  gpu: report.gpu.names[0] ?? null,
  tf32: process.env.NVIDIA_TF32_OVERRIDE !== '0',
  triton: process.env.TFJS_MAMBA2_TRITON !== '0',
};
const print = (record: Record<string, unknown>): void => console.log(JSON.stringify({ ...settings, ...record }));

/** Largest differences of one batch of prompts: a prompt at a time, and a token at a time. */
async function differences(
  model: Mamba2ForCausalLM,
  dtype: ProgramDtype,
  ids: readonly number[][],
  want: (row: number, t: number) => ArrayLike<number> | null,
): Promise<{ prompt: number; steps: number; largest_logit: number }> {
  const engine = new CompiledEngine(model.weights, { dtype, segments: [64], block: 1 });
  const worst = { prompt: 0, steps: 0, largest_logit: 0 };
  for (const [row, tokens] of ids.entries()) {
    const end = want(row, tokens.length - 1)!;
    const read = await engine.createState(1);
    await engine.prefill(read, [Int32Array.from(tokens)]);
    worst.prompt = Math.max(worst.prompt, largestDifference((await engine.logits(read))[0]!, end).difference);
    worst.largest_logit = Math.max(worst.largest_logit, ...Array.from(end, Math.abs));
    read.dispose();
    const state = await engine.createState(1);
    for (const [t, token] of tokens.entries()) {
      await engine.step(state, Int32Array.of(token));
      const expected = want(row, t);
      if (!expected) continue;
      worst.steps = Math.max(worst.steps, largestDifference((await engine.logits(state))[0]!, expected).difference);
    }
    state.dispose();
  }
  engine.dispose();
  return worst;
}

for (const [name, tensor] of [
  ['g1-forward', 'logits'],
  ['g4-forward', 'per_group.logits'],
  ['bias-and-limit', 'logits'],
] as const) {
  const golden = loadGolden(name);
  const { config, source } = await loadCheckpoint(golden.dir);
  const model = new Mamba2ForCausalLM(config, source);
  const ids = golden.inputs.input_ids as number[][];
  const { shape, data } = golden.tensor(tensor);
  const [t, v] = [shape[1]!, shape[2]!];
  for (const dtype of ['float32', 'bfloat16'] as const)
    print({
      golden: name,
      dtype,
      ...(await differences(model, dtype, ids, (row, at) => data.slice((row * t + at) * v, (row * t + at + 1) * v))),
    });
  const { logits } = model.forward({ input_ids: ids, use_cache: false });
  print({ golden: name, dtype: 'float32', eager: largestDifference(logits.dataSync(), data).difference });
  logits.dispose();
  model.dispose();
}
const books = loadGolden('books-model');
const runs = books.json.runs as { prompt_ids: number[] }[];
const { config, source } = await loadCheckpoint('models/tiny-books-mamba2');
const model = new Mamba2ForCausalLM(config, source);
const { shape, data } = books.tensor('last_logits');
const v = shape[1]!;
for (const dtype of ['float32', 'bfloat16'] as const)
  print({
    golden: 'books-model',
    dtype,
    ...(await differences(
      model,
      dtype,
      runs.map((run) => run.prompt_ids),
      (row, at) => (at === runs[row]!.prompt_ids.length - 1 ? data.slice(row * v, (row + 1) * v) : null),
    )),
  });
process.exit(0);
