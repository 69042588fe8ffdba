/** As concurrency.test.ts, with prompts, options and batch sizes of all sorts: a program for each set of batch sizes is compiled. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import type { CompiledEngineOptions } from '../../src/engine/compiled/compiled_engine.js';
import type { GenerateInputs } from '../../src/generation/index.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { lcg } from '../support/random.js';
import { randomIds, tinyModel } from '../support/tiny_model.js';

const V = 11;

describe('calls at once on a compiled model', () => {
  let root: string;
  const made = disposedAfterEach();

  before(async () => {
    await useBackend('tensorflow');
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'at-once-'));
    const { model } = tinyModel();
    await model.save_pretrained(root);
    model.dispose();
  });
  after(() => fs.rmSync(root, { recursive: true }));

  const load = async (options: CompiledEngineOptions): Promise<Mamba2ForCausalLM> => {
    const model = await Mamba2ForCausalLM.from_pretrained(root, { engine: 'compiled', block: 4, ...options });
    made.push(model);
    return model;
  };
  const ids = (seed: number, length: number): number[] => randomIds(lcg(seed), 1, length, V)[0]!;

  it('are what each gives alone: prompts, options and batch sizes of all sorts', async () => {
    const base = { max_new_tokens: 13, eos_token_id: null };
    const cases: GenerateInputs[] = [
      { ...base, input_ids: [ids(1, 21)], do_sample: false },
      { ...base, input_ids: [ids(2, 9)], do_sample: false },
      { ...base, input_ids: [ids(3, 5)], do_sample: false, suppress_tokens: [1, 4, 7], repetition_penalty: 1.5 },
      { ...base, input_ids: [ids(4, 17)], do_sample: true, seed: 3, temperature: 1.5 },
      { ...base, input_ids: [ids(5, 12)], do_sample: true, seed: 4, suppress_tokens: [2], repetition_penalty: 1.2 },
      { ...base, input_ids: [ids(6, 3)], do_sample: false, eos_token_id: 8 },
      { ...base, input_ids: [ids(7, 6), ids(8, 14)], do_sample: false },
      { ...base, input_ids: [ids(9, 4)], do_sample: true, seed: 5, num_return_sequences: 2 },
      { ...base, input_ids: [ids(10, 8)], num_beams: 2, do_sample: false },
    ];
    const model = await load({ batches: [1, 2], segments: [8] });
    const alone: unknown[] = [];
    for (const inputs of cases) alone.push(await model.generate(inputs));
    expect(new Set(alone.map((rows) => JSON.stringify(rows))).size).to.equal(cases.length);
    expect(await Promise.all(cases.map((inputs) => model.generate(inputs)))).to.deep.equal(alone);
    // the first calls of a model, of which some ask for a batch size that its program has not yet
    const fresh = await load({ segments: [8] });
    expect(await Promise.all(cases.map((inputs) => fresh.generate(inputs)))).to.deep.equal(alone);
  });
});
