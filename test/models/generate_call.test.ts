/** The forms in which generate(), forward() and prefill() are called, and what each refuses. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, GenerationError } from '../../src/base/errors.js';
import { GenerationConfig } from '../../src/generation/index.js';
import {
  type CausalLMInputs,
  Mamba2Config,
  Mamba2ForCausalLM,
  type PrefillOptions,
} from '../../src/models/mamba2/index.js';
import { selectBackend } from '../../src/runtime/index.js';
import { rejection, thrown } from '../support/errors.js';
import { TINY } from '../support/tiny_model.js';

describe('a call of', () => {
  let model: Mamba2ForCausalLM;
  before(async () => {
    await selectBackend('cpu');
    model = new Mamba2ForCausalLM(new Mamba2Config(TINY), null, { engine: 'eager' });
  });
  after(() => model.dispose());

  describe('generate()', () => {
    it('takes ids first and options second, as transformers does, in every form of ids', async () => {
      const expected = await model.generate({ input_ids: [[3, 2, 4]], max_new_tokens: 4 });
      const tensor = tf.tensor2d([[3, 2, 4]], [1, 3], 'int32');
      const encoding = { input_ids: tensor, attention_mask: [[1, 1, 1]] };
      for (const ids of [[[3, 2, 4]], [Int32Array.of(3, 2, 4)], tensor, encoding])
        expect(await model.generate(ids, { max_new_tokens: 4 })).to.deep.equal(expected);
      expect(await model.generate({ ...encoding, max_new_tokens: 4 })).to.deep.equal(expected);
      tensor.dispose();
    });

    it('is typed by return_dict_in_generate', async () => {
      const rows: number[][] = await model.generate([[1, 2]], { max_new_tokens: 2 });
      const { sequences } = await model.generate([[1, 2]], { max_new_tokens: 2, return_dict_in_generate: true });
      const { new_tokens } = await model.generate({
        input_ids: [[1, 2]],
        max_new_tokens: 2,
        return_dict_in_generate: true,
      });
      expect(sequences).to.deep.equal(rows);
      expect(new_tokens[0]).to.deep.equal(rows[0]!.slice(2));
    });

    it('takes a GenerationConfig, or an object of its options', async () => {
      const config = new GenerationConfig({ max_new_tokens: 3, do_sample: true, seed: 4 });
      const drawn = await model.generate([[1, 2]], { generation_config: config });
      expect(await model.generate([[1, 2]], { ...config })).to.deep.equal(drawn);
      expect(await model.generate([[1, 2]], { generation_config: config.to_dict() })).to.deep.equal(drawn);
    });

    const passes: [string, unknown, RegExp][] = [
      ['a text', 'Once', /the text "Once".*await tokenizer\(text\)/],
      ['texts', ['Once', 'Twice'], /the texts \["Once","Twice"\].*await tokenizer\(text\)/],
      ['a bare row', [1, 2, 3], /\[1,2,3\].*brackets around it/],
      ['a bare typed array', Int32Array.of(1, 2), /brackets around it/],
      ['a promise', Promise.resolve([[1]]), /a promise.*await/],
      ['nothing', undefined, /undefined; expected generate\(/],
      ['null', null, /null; expected generate\(/],
      ['a number', 3, /3; expected generate\(/],
      ['an empty object', {}, /expected generate\(/],
      ['an empty list', [], /expected generate\(/],
    ];
    for (const [what, value, message] of passes)
      it(`says what to pass where it gets ${what}`, async () => {
        const error = await rejection(model.generate(value as number[][]));
        expect(error).to.be.instanceOf(GenerationError);
        expect(error.message).to.match(message);
      });

    const refused: [object, RegExp][] = [
      [{ max_new_token: 3 }, /no option max_new_token\. Did you mean max_new_tokens\?/],
      [{ maxNewTokens: 3 }, /Did you mean max_new_tokens\?/],
      [{ max_tokens: 3 }, /called max_new_tokens here/],
      [{ callback_function: () => 0 }, /called streamer here/],
      [{ stop: 'x' }, /called stop_strings here/],
      [{ inputs_embeds: [[1]] }, /not supported/],
      [{ max_cache_len: 5 }, /not supported/],
      [{ max_new_tokens: '3' }, /max_new_tokens is "3"; expected an integer of 1 or more/],
      [{ streamer: {} }, /streamer is \{\}; expected a streamer/],
      [{ logits_processor: [() => 0] }, /logits_processor is .*; expected a list of logits processors/],
      [{ signal: 'soon' }, /expected an AbortSignal/],
      [{ generation_config: 'greedy' }, /expected a GenerationConfig/],
      [{ generation_config: { max_tokens: 3 } }, /called max_new_tokens here/],
      [{ temperature: 0.5 }, /no effect without do_sample: true/],
      [{ do_sample: false, top_p: 0.9 }, /no effect without do_sample: true/],
      [{ length_penalty: 2 }, /no effect without num_beams above 1/],
      [{ output_scores: true }, /no effect without return_dict_in_generate: true/],
      [{ use_cache: false }, /always carried along/],
      [{ input_ids: [[1]] }, /ids twice/],
    ];
    for (const [options, message] of refused)
      it(`refuses ${Object.keys(options).join(', ')}: ${message.source}`, async () => {
        const error = await rejection(model.generate([[1, 2]], options));
        expect(error).to.be.instanceOf(GenerationError);
        expect(error.message).to.match(message);
      });

    it('passes what is off, and what does nothing', async () => {
      const off = {
        num_beam_groups: 1,
        output_attentions: false,
        assistant_model: null,
        temperature: 1,
        synced_gpus: false,
      };
      await model.generate([[1, 2]], { max_new_tokens: 1, ...off });
    });

    it('tells the streamer of an option that is refused', async () => {
      let told: unknown;
      const streamer = { put() {}, end() {}, fail: (error: unknown) => (told = error) };
      const error = await rejection(model.generate([[1]], { streamer, max_tokens: 1 } as object));
      expect(told).to.equal(error);
    });
  });

  it('forward() and prefill() is checked, too', async () => {
    const forward = (inputs: unknown) => thrown(() => model.forward(inputs as CausalLMInputs)).message;
    expect(forward({ input_id: [[1]] })).to.include('Did you mean input_ids?');
    expect(forward({ input_ids: [[1]], past_key_values: 1 })).to.include('called cache here');
    expect(forward({ input_ids: [[1]], output_attentions: true })).to.include('no attention');
    expect(forward({ input_ids: [[1]], logits_to_keep: -1 })).to.include('logits_to_keep is -1');
    expect(forward('text')).to.include('expected an object');
    expect(forward(undefined)).to.include('expected an object');
    expect(thrown(() => model.backbone.forward({ labels: [[1]] } as object)).message).to.include('no option labels');
    const error = await rejection(model.prefill([[1]], { stat: 1 } as unknown as PrefillOptions));
    expect(error).to.be.instanceOf(ArgumentError);
    expect(error.message).to.include('Did you mean state?');
  });
});
