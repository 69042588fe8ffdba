/** In float32 a seed gives the same ids by every engine and backend, alone and in a batch. */
import * as path from 'node:path';
import { expect } from 'chai';
import type { GenerationOptions } from '../../src/generation/index.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { type BackendName, useBackend } from '../support/backends.js';

const MODEL = path.resolve('models/tiny-books-mamba2');
const PROMPTS = [
  [319, 257, 284],
  [50, 61, 72],
];
const TOKENS = 48;

const SETTINGS: Record<string, GenerationOptions> = {
  greedy: { do_sample: false },
  temperature: { do_sample: true, temperature: 0.8, top_k: 0 },
  top_p: { do_sample: true, top_p: 0.9, top_k: 0 },
  min_p: { do_sample: true, min_p: 0.05, top_k: 0 },
  'top_k 40': { do_sample: true, top_k: 40 },
  'all together': { do_sample: true, top_k: 50, top_p: 0.95, min_p: 0.01, repetition_penalty: 1.2, temperature: 1.1 },
};

function written(
  model: Mamba2ForCausalLM,
  settings: GenerationOptions,
  seed: number,
  prompts = PROMPTS,
): Promise<number[][]> {
  const asked = { ...settings, ...(settings.do_sample && { seed }), max_new_tokens: TOKENS, eos_token_id: null };
  return model.generate({ ...asked, input_ids: prompts, return_dict_in_generate: false, return_state: false });
}

/** What a model on a backend says for each of the settings, by seed. */
async function said(
  backend: BackendName,
  engine: 'eager' | 'compiled',
  seeds: readonly number[],
): Promise<number[][][]> {
  await useBackend(backend);
  const model = await Mamba2ForCausalLM.from_pretrained(MODEL, {
    engine,
    dtype: engine === 'eager' ? undefined : 'float32',
  });
  const rows: number[][][] = [];
  try {
    for (const settings of Object.values(SETTINGS))
      for (const seed of seeds) rows.push(await written(model, settings, seed));
    return rows;
  } finally {
    model.dispose();
  }
}

describe('a seed', function () {
  this.timeout(240_000);
  const seeds = [1, 2];
  let compiled: number[][][];
  before(async () => void (compiled = await said('tensorflow', 'compiled', seeds)));

  const names = Object.keys(SETTINGS).flatMap((name) => seeds.map((seed) => `${name}, seed ${seed}`));
  it('gives the same ids eager and compiled', async () => {
    const eager = await said('tensorflow', 'eager', seeds);
    names.forEach((name, i) => expect(eager[i], name).to.deep.equal(compiled[i]));
  });

  it('gives the same ids on another backend', async () => {
    const wasm = await said('wasm', 'eager', [1]);
    Object.keys(SETTINGS).forEach((name, i) => expect(wasm[i], name).to.deep.equal(compiled[i * seeds.length]));
  });

  it('gives a row the ids that it has alone', async () => {
    await useBackend('tensorflow');
    const model = await Mamba2ForCausalLM.from_pretrained(MODEL, { engine: 'compiled', dtype: 'float32' });
    const [row] = await written(model, SETTINGS['all together']!, 1, [PROMPTS[0]!]);
    model.dispose();
    expect(row).to.deep.equal(compiled[names.indexOf('all together, seed 1')]![0]);
  });
});
