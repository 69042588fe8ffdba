import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { GenerationError, SaveError } from '../../src/base/errors.js';
import { GenerationConfig } from '../../src/generation/index.js';
import type { GenerationOptions } from '../../src/generation/index.js';
import { rejection, thrown } from '../support/errors.js';

describe('GenerationConfig', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(path.join(os.tmpdir(), 'generation-'));
  });
  afterEach(() => rm(dir, { recursive: true }));
  const write = (values: unknown): Promise<void> =>
    writeFile(path.join(dir, 'generation_config.json'), typeof values === 'string' ? values : JSON.stringify(values));

  it("has transformers' defaults", () => {
    const o = new GenerationConfig().resolve();
    expect(o).to.include({ do_sample: false, num_beams: 1, temperature: 1, top_k: 50, top_p: 1, typical_p: 1 });
    expect(o).to.include({ repetition_penalty: 1, length_penalty: 1, early_stopping: false, num_return_sequences: 1 });
    expect(o.max_new_tokens).to.equal(null);
    expect(o.eos_token_id).to.deep.equal([]);
  });

  it("reads the model's file, and its config where there is none", async () => {
    const config = await GenerationConfig.from_pretrained('models/tiny-books-mamba2');
    expect(config).to.include({ eos_token_id: 0, pad_token_id: 1, bos_token_id: 0 });
    const none = await GenerationConfig.from_pretrained(dir, { eos_token_id: [4, 5], pad_token_id: null, hidden: 3 });
    expect(none.resolve()).to.deep.include({ eos_token_id: [4, 5], pad_token_id: 4 });
  });

  it('lets a call win over the file, null turning an option off', async () => {
    await write({ eos_token_id: 7, do_sample: true, temperature: 0.5, max_length: 50, top_k: 9 });
    const config = await GenerationConfig.from_pretrained(dir);
    expect(config.resolve()).to.deep.include({ eos_token_id: [7], do_sample: true, temperature: 0.5, top_k: 9 });
    const o = config.resolve({ eos_token_id: null, temperature: undefined, top_k: null, max_new_tokens: 3 });
    expect(o).to.deep.include({ eos_token_id: [], temperature: 0.5, top_k: 0, max_new_tokens: 3, max_length: 50 });
  });

  it('lets a max_length of the call win over a max_new_tokens of the file', async () => {
    await write({ max_new_tokens: 100 });
    const config = await GenerationConfig.from_pretrained(dir);
    expect(config.resolve({ max_length: 9 })).to.include({ max_new_tokens: null, max_length: 9 });
  });

  it('may be changed field by field, and checks that too', () => {
    const config = new GenerationConfig();
    config.max_new_tokens = 5;
    expect(config.resolve().max_new_tokens).to.equal(5);
    config.temperature = -1;
    expect(thrown(() => config.resolve()).message).to.include('temperature is -1');
  });

  it('keeps unknown keys of a file, and writes all back', async () => {
    const values = { transformers_version: '5.18.0', note: { a: 1 }, top_p: 0.9, output_attentions: false };
    await write(values);
    const config = await GenerationConfig.from_pretrained(dir);
    const out = path.join(dir, 'out');
    await mkdir(out);
    await config.save_pretrained(out);
    expect(JSON.parse(await readFile(path.join(out, 'generation_config.json'), 'utf8'))).to.deep.equal(values);
  });

  it('refuses what it cannot do by name, when it is asked to and not before', async () => {
    await write({ penalty_alpha: 0.6, top_k: 4 });
    const config = await GenerationConfig.from_pretrained(dir);
    const error = thrown(() => config.resolve());
    expect(error).to.be.instanceOf(GenerationError);
    expect(error.message).to.include('penalty_alpha').and.to.include('contrastive');
    expect(config.resolve({ penalty_alpha: null }).top_k).to.equal(4);
  });

  it('judges a config given with the call as it judges its own', async () => {
    await write({ penalty_alpha: 0.6, top_k: 4, note: 'a writer wrote this' });
    const over = await GenerationConfig.from_pretrained(dir);
    const own = new GenerationConfig({ top_k: 9, top_p: 0.5 });
    const error = thrown(() => own.resolve({}, over));
    expect(error).to.be.instanceOf(GenerationError);
    expect(error.message).to.include('penalty_alpha').and.to.include('contrastive');
    expect(own.resolve({ penalty_alpha: null }, over)).to.include({ top_k: 4, top_p: 0.5 });
    expect(thrown(() => own.resolve({ penalty_alpha: undefined }, over)).message).to.include('penalty_alpha');
    // What it turns off counts for what is below it.
    const off = new GenerationConfig({ penalty_alpha: null } as GenerationOptions);
    expect(over.resolve({}, off).top_k).to.equal(4);
    expect(over.resolve({}, { penalty_alpha: null, top_k: 3 } as never).top_k).to.equal(3);
    for (const [key, part] of [
      ['num_beam_groups', 'group beam search'],
      ['topK', 'Did you mean top_k'],
    ] as const) {
      const added = Object.assign(new GenerationConfig(), { [key]: 2 });
      for (const call of [() => own.resolve({}, added), () => added.resolve(), () => own.resolve({}, { [key]: 2 })]) {
        expect(thrown(call).message).to.include(key).and.to.include(part);
      }
    }
  });

  it('takes the values of unsupported options that mean "off"', async () => {
    await write({
      num_beam_groups: 1,
      diversity_penalty: 0.0,
      encoder_no_repeat_ngram_size: 0,
      assistant_lookbehind: 10,
    });
    expect((await GenerationConfig.from_pretrained(dir)).resolve().num_beams).to.equal(1);
  });

  for (const [what, text] of [
    ['cut off', '{"top_k": '],
    ['a list', '[1]'],
    ['with a wrong value', '{"top_k": "many"}'],
  ]) {
    it(`refuses a file that is ${what}`, async () => {
      await write(text);
      const error = await rejection(GenerationConfig.from_pretrained(dir));
      expect(error).to.be.instanceOf(GenerationError);
      expect(error.message).to.match(/generation_config\.json|top_k/);
    });
  }

  it('says when it cannot be written, and leaves nothing behind', async () => {
    const error = await rejection(new GenerationConfig().save_pretrained(path.join(dir, 'nowhere')));
    expect(error).to.be.instanceOf(SaveError);
    expect(error.message).to.include('nowhere');
  });

  for (const [key, value] of [
    ['max_new_tokens', 0],
    ['max_new_tokens', 2.5],
    ['temperature', 0],
    ['temperature', Infinity],
    ['top_k', -1],
    ['min_p', 2],
    ['eos_token_id', []],
    ['eos_token_id', -1],
    ['bad_words_ids', [[]]],
    ['bad_words_ids', [5]],
    ['sequence_bias', [[[1], 'x']]],
    ['stop_strings', ''],
    ['early_stopping', 'always'],
    ['seed', -1],
    ['do_sample', 'yes'],
    ['exponential_decay_length_penalty', [1]],
    ['max_time', 0],
  ] as [string, unknown][]) {
    it(`refuses ${key}: ${JSON.stringify(value)}`, () => {
      const error = thrown(() => new GenerationConfig({ [key]: value }));
      expect(error).to.be.instanceOf(GenerationError);
      expect(error.message).to.include(key).and.to.include('expected');
    });
  }
});
