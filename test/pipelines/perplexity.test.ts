import { expect } from 'chai';
import { ArgumentError } from '../../src/base/errors.js';
import { AutoModelForCausalLM, AutoTokenizer } from '../../src/models/auto/index.js';
import type { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { perplexity } from '../../src/pipelines/index.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { loadGolden } from '../support/goldens.js';

describe('perplexity', function () {
  this.timeout(120_000);
  const golden = loadGolden('books-model');
  const want = golden.json.perplexity as { tokens: number; mean_nll: number; perplexity: number };
  let model: Mamba2ForCausalLM;
  let ids: number[];
  before(async () => {
    await useBackend('tensorflow');
    const dir = 'models/tiny-books-mamba2';
    model = await AutoModelForCausalLM.from_pretrained(dir);
    const tokenizer = await AutoTokenizer.from_pretrained(dir);
    ids = (await tokenizer.encode(golden.inputs.passage as string)).slice(0, want.tokens);
  });
  after(() => model.dispose());

  for (const segment of [97, 256, 2000]) {
    it(`is the golden one, in segments of ${segment}`, async () => {
      const seen: number[] = [];
      const got = await perplexity(model, ids, { segment, on_progress: (done) => seen.push(done) });
      const scored = want.tokens - 1;
      expect(got.tokens).to.equal(scored);
      expect(Math.abs(got.perplexity / want.perplexity - 1)).to.be.below(1e-4);
      const { data } = golden.tensor('passage.nll');
      expect(got.nll).to.have.length(data.length);
      got.nll.forEach((value, i) => expect(value, `token ${i}`).to.be.closeTo(data[i]!, 1e-3));
      expect(seen).to.have.length(Math.ceil(scored / segment));
      expect(seen.at(-1)).to.equal(scored);
    });
  }

  it('lets the event loop run within a segment', async () => {
    let turns = 0;
    let ended = false;
    const count = (): void => {
      turns++;
      if (!ended) setImmediate(count);
    };
    const work = perplexity(model, ids, { segment: ids.length, on_progress: () => (ended = true) });
    setImmediate(count);
    await work;
    // at once it would be the one after the segment
    expect(turns).to.be.greaterThan(2);
  });

  it('leaves no tensors behind, at an abort either', async () => {
    await perplexity(model, ids.slice(0, 9));
    const before = tensorCount();
    await perplexity(model, ids.slice(0, 9), { segment: 4 });
    const controller = new AbortController();
    const onProgress = (): void => controller.abort(new Error('enough'));
    const error = await rejection(
      perplexity(model, ids, { segment: 4, on_progress: onProgress, signal: controller.signal }),
    );
    expect(error.message).to.equal('enough');
    expect(tensorCount()).to.deep.equal(before);
  });

  it('refuses a text of one id, and a segment of none', async () => {
    expect(await rejection(perplexity(model, [5]))).to.be.instanceOf(ArgumentError);
    expect(await rejection(perplexity(model, [5, 6], { segment: 0 }))).to.be.instanceOf(ArgumentError);
  });
});
