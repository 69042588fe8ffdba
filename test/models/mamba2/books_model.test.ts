/** The trained tiny-books-mamba2 writes what transformers writes, on both engines. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { AutoModelForCausalLM, AutoTokenizer } from '../../../src/models/auto/index.js';
import type { EngineKind, Mamba2ForCausalLM } from '../../../src/models/mamba2/index.js';
import type { Tokenizer } from '../../../src/tokenizers/index.js';
import { useBackend } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import { loadGolden, vectorOf } from '../../support/goldens.js';

const DIR = 'models/tiny-books-mamba2';

interface Run {
  prompt: string;
  prompt_ids: number[];
  new_tokens: number[];
  new_text: string;
}

for (const engine of ['eager', 'compiled'] as EngineKind[]) {
  describe(`books-model (${engine} engine)`, function () {
    this.timeout(180_000);
    const golden = loadGolden('books-model');
    const runs = golden.json.runs as Run[];
    let model: Mamba2ForCausalLM;
    let tokenizer: Tokenizer;
    before(async () => {
      await useBackend('tensorflow');
      model = await AutoModelForCausalLM.from_pretrained(DIR, {
        engine,
        dtype: 'float32',
        batches: [1, runs.length],
        segments: [16, 64, 256],
      });
      tokenizer = await AutoTokenizer.from_pretrained(DIR);
    });
    after(() => model.dispose());

    it('gives the golden logits after each prompt', async () => {
      const made = await model.engine();
      for (const [i, run] of runs.entries()) {
        const state = await made.createState(1);
        await made.prefill(state, [Int32Array.from(run.prompt_ids)]);
        expectClose((await made.logits(state))[0]!, vectorOf(golden.tensor('last_logits'), i), 1e-3, run.prompt);
        state.dispose();
      }
    });

    it('continues each prompt with the golden tokens', async () => {
      for (const run of runs) {
        const encoded = await tokenizer.encode(run.prompt);
        expect([...encoded]).to.deep.equal(run.prompt_ids);
        const [ids] = await model.generate({
          input_ids: [encoded],
          max_new_tokens: run.new_tokens.length,
          do_sample: false,
        });
        const fresh = ids!.slice(run.prompt_ids.length);
        expect(fresh).to.deep.equal(run.new_tokens);
        expect(await tokenizer.decode(fresh)).to.equal(run.new_text);
      }
    });

    it('continues all prompts as one batch alike', async () => {
      const batch = (await model.generate({
        input_ids: runs.map((run) => run.prompt_ids),
        max_new_tokens: runs[0]!.new_tokens.length,
        do_sample: false,
        return_dict_in_generate: true,
      })) as { new_tokens: number[][] };
      expect(batch.new_tokens).to.deep.equal(runs.map((run) => run.new_tokens));
    });
  });
}

describe('books-model perplexity', () => {
  before(() => useBackend('tensorflow'));
  it('gives the golden loss of every token', async () => {
    const golden = loadGolden('books-model');
    const model = await AutoModelForCausalLM.from_pretrained(DIR);
    const ids = golden.inputs.passage_ids as number[];
    tf.tidy(() => {
      const { logits, loss } = model.forward({ input_ids: [ids], labels: [ids], use_cache: false });
      const [scored, vocabulary] = [ids.length - 1, logits.shape[2]];
      const log = tf.logSoftmax(tf.slice(tf.squeeze(logits, [0]), [0, 0], [scored, -1]));
      const next = tf.oneHot(tf.tensor1d(ids.slice(1), 'int32'), vocabulary);
      const nll = tf.neg(tf.sum(tf.mul(log, next), 1));
      expectClose(nll, golden.tensor('passage.nll').data, 1e-3, 'nll');
      const want = (golden.json.perplexity as { perplexity: number }).perplexity;
      expect(Math.exp(loss!.dataSync()[0]!) / want).to.be.closeTo(1, 1e-4);
    });
    model.dispose();
  });
});
