/** What loading and reading a prompt refuse, and that a failure leaves nothing open. */
import { expect } from 'chai';
import { ArgumentError } from '../../../src/base/errors.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { useBackend } from '../../support/backends.js';
import { rejection } from '../../support/errors.js';
import { leftOpenUnder, openUnder, tellsOpenFiles } from '../../support/open_files.js';
import { tinyModel } from '../../support/tiny_model.js';

const MODEL = 'models/tiny-books-mamba2';
describe('loading a model', () => {
  before(() => useBackend('tensorflow'));

  it('leaves no file open where the device cannot be had', async function () {
    if (!tellsOpenFiles) return this.skip();
    const open = openUnder(MODEL);
    const wrong = { device: 'abacus' as 'cpu' };
    expect(await rejection(Mamba2ForCausalLM.from_pretrained(MODEL, wrong))).to.be.instanceOf(ArgumentError);
    expect(await leftOpenUnder(MODEL, open)).to.equal(0);
  });

  for (const engine of ['eager', 'compiled'] as const)
    it(`reads only ids that are whole numbers of the vocabulary (${engine})`, async () => {
      const { model } = tinyModel();
      const own = new Mamba2ForCausalLM(model.config, null, { engine, segments: [4] });
      for (const id of [1.5, NaN, 2 ** 32 + 5, -1, model.config.vocab_size]) {
        const error = await rejection(own.prefill([1, id]));
        expect(error, String(id)).to.be.instanceOf(ArgumentError);
        expect(error.message).to.contain(`holds ${id} at position 1`);
      }
      own.dispose();
      model.dispose();
    });

  it('takes null for an option of generate() as off, with a state too', async () => {
    const { model } = tinyModel();
    model.generation_config.return_dict_in_generate = true;
    const state = await model.prefill([1, 2]);
    const call = { input_ids: [[3]], state, max_new_tokens: 1, do_sample: false };
    expect(await model.generate(call)).to.have.property('sequences');
    const rows = await model.generate({ ...call, return_dict_in_generate: null });
    expect(rows).to.be.an('array');
    state.dispose();
    model.dispose();
  });
});
