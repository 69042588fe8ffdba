/** Long decoding on the trained model: slow, so among the long tests. */
import { expect } from 'chai';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { GREEDY, type GenerationEngine } from '../../src/generation/engine.js';
import { AutoModelForCausalLM } from '../../src/models/auto/index.js';
import type { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { loadCase, fixture } from '../support/goldens.js';

const DIR = 'models/tiny-books-mamba2';
const MB = 1e6;
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Resident memory without what JavaScript is about to give back. */
function resident(): number {
  collect();
  return process.memoryUsage().rss;
}

describe('long decoding', function () {
  this.timeout(600_000);
  const runs = loadCase(fixture('goldens/books-model')).json.runs as { prompt_ids: number[] }[];
  const prompts = runs.map((run) => run.prompt_ids);
  const models: Mamba2ForCausalLM[] = [];
  before(() => useBackend('tensorflow'));
  after(() => models.forEach((model) => model.dispose()));
  const load = async (engine: 'eager' | 'compiled', batches: number[]): Promise<Mamba2ForCausalLM> => {
    const model = await AutoModelForCausalLM.from_pretrained(DIR, { engine, dtype: 'float32', batches });
    models.push(model);
    return model;
  };
  const write = async (
    model: Mamba2ForCausalLM,
    input_ids: number[][],
    max_new_tokens: number,
  ): Promise<number[][]> => {
    const options = {
      input_ids,
      max_new_tokens,
      min_new_tokens: max_new_tokens,
      do_sample: false,
      return_dict_in_generate: true,
    };
    return ((await model.generate(options)) as unknown as { new_tokens: number[][] }).new_tokens;
  };

  it('chooses the same 200 tokens as the eager engine for five prompts, and for four uneven ones together', async () => {
    const compiled = await load('compiled', [1, 4]);
    const eager = await load('eager', [1]);
    expect(prompts.length).to.equal(5);
    const alone: number[][] = [];
    for (const prompt of prompts) {
      const [tokens] = await write(compiled, [prompt], 200);
      expect(tokens!.length).to.equal(200);
      expect(tokens).to.deep.equal((await write(eager, [prompt], 200))[0]);
      alone.push(tokens!);
    }
    const uneven = prompts.slice(0, 4);
    expect(new Set(uneven.map((prompt) => prompt.length)).size).greaterThan(1);
    expect(await write(compiled, uneven, 200)).to.deep.equal(alone.slice(0, 4));
  });

  it('decodes 1,000 tokens, in blocks and one by one, without growing', async () => {
    const model = await load('compiled', [1]);
    const engine: GenerationEngine = await model.engine();
    const state = await engine.createState(1);
    await engine.prefill(state, [Int32Array.from(prompts[0]!)]);
    const some = async (blocks: number, steps: number): Promise<void> => {
      for (let i = 0; i < blocks; i++) await engine.decode!(state, 16, GREEDY, []);
      for (let i = 0; i < steps; i++) await engine.step(state, Int32Array.of(i + 1));
    };
    await some(10, 100);
    const tensors = tensorCount();
    const memory = resident();
    await some(63, 1000);
    expect(tensorCount()).to.deep.equal(tensors);
    expect(resident() - memory).lessThan(8 * MB);
    state.dispose();
  });
});
