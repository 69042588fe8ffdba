/** What the bench tasks `batches` and `sampling` share: a model of a folder, prompts, and a call of generate() under a clock. */
import * as path from 'node:path';
import { type CompileHook } from '../src/jit/index.js';
import { generate, GenerationConfig, type GenerationEngine } from '../src/generation/index.js';
import { type Mamba2ForCausalLM } from '../src/models/mamba2/causal_lm.js';
import { AutoModelForCausalLM } from '../src/models/auto/index.js';
import { type Work } from './peers/peer.js';
import { provideCheckpoint } from './random_checkpoint.js';
import { cacheRoot } from '../src/runtime/index.js';

/** The small trained model by its name, a bench checkpoint by the name of its folder (130m-bfloat16), which is written where there is none, or a path. */
export async function modelOf(name: string, options: { on_compile?: CompileHook } = {}): Promise<Mamba2ForCausalLM> {
  if (name === 'tiny-books') return AutoModelForCausalLM.from_pretrained('models/tiny-books-mamba2', options);
  if (name.includes('/')) return AutoModelForCausalLM.from_pretrained(name, options);
  const [model, dtype = 'bfloat16'] = name.split('-');
  const checkpoint = path.join(cacheRoot(), 'bench', `${model}-${dtype}`);
  await provideCheckpoint({ checkpoint, model: model!, dtype: dtype as Work['dtype'] });
  return AutoModelForCausalLM.from_pretrained(checkpoint, options);
}

export type CallOptions = Record<string, unknown>;

/** Seconds that a call takes: `rows` prompts of 16 ids, `tokens` new ones each, no end before. */
export async function secondsOf(
  engine: GenerationEngine,
  rows: number,
  tokens: number,
  options: CallOptions = {},
): Promise<number> {
  const row = (i: number): number[] =>
    Array.from({ length: 16 }, (_, k) => 2 + ((i * 31 + k * 37) % Math.min(engine.vocab_size - 2, 4000)));
  const began = performance.now();
  await generate(engine, new GenerationConfig({}), {
    input_ids: Array.from({ length: rows }, (_, i) => row(i)),
    max_new_tokens: tokens,
    ...options,
  });
  return (performance.now() - began) / 1000;
}
