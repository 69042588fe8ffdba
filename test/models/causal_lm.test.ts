/** What a causal model takes and returns, whatever its architecture. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError } from '../../src/base/errors.js';
import { GenerationConfig, type GenerateOutput } from '../../src/generation/index.js';
import { CausalLM } from '../../src/models/causal_lm.js';
import { onBackends } from '../support/backends.js';
import { rejection, thrown } from '../support/errors.js';
import { GatedNetwork } from '../support/gated_recurrence.js';

onBackends(['tensorflow', 'cpu'], 'a causal model', () => {
  let model: CausalLM<GatedNetwork>;
  before(() => (model = new CausalLM(new GatedNetwork(), null, { engine: 'eager' })));
  after(() => model.dispose());
  const v = 23;
  const few = { max_new_tokens: 3 };

  it('reads ids in any form, tensors too, and gives the same for each', async () => {
    const rows = [
      [3, 1, 4],
      [1, 5, 9],
    ];
    const want = await model.generate({ input_ids: rows, ...few });
    const tensors = [tf.tensor2d(rows, [2, 3], 'int32'), tf.tensor2d(rows, [2, 3], 'float32')];
    const forms = [rows.map((row) => Int32Array.from(row)), ...tensors];
    for (const form of forms) {
      expect(await model.generate({ input_ids: form, ...few })).to.deep.equal(want);
      const state = await model.prefill(form);
      expect(state.ids).to.deep.equal(rows);
      const { logits } = model.forward({ input_ids: form, logits_to_keep: 1, use_cache: false });
      const last = logits.dataSync<'float32'>();
      const { tensors: arrays } = await state.toArrays();
      arrays['logits']!.data.forEach((value, i) => expect(value).to.be.closeTo(last[i]!, 1e-4));
      logits.dispose();
      state.dispose();
    }
    const mask = tf.tensor2d([[0, 1, 1]], [1, 3], 'int32');
    const row = tf.tensor1d(rows[0]!, 'int32');
    const [masked] = await model.generate({ input_ids: row, attention_mask: mask, ...few });
    const [plain] = await model.generate({ input_ids: [1, 4], ...few });
    expect(masked!.slice(3)).to.deep.equal(plain!.slice(2));
    tf.dispose([...tensors, mask, row]);
  });

  it('refuses what are no ids of its vocabulary in one way, wherever they are given', async () => {
    const cube = tf.zeros([1, 2, 3], 'int32');
    const cases: [unknown, RegExp][] = [
      [[[1, 2, v]], new RegExp(`Row 0 of \\w+ holds ${v} at position 2; expected ids from 0 to ${v - 1}`)],
      [
        [
          [1, 2],
          [1.5, 3],
        ],
        /Row 1 of \w+ holds 1.5 at position 0/,
      ],
      [[[1], 2], /Row 1 of \w+ is 2; expected a list of ids/],
      [7, /\w+ is 7; expected rows of ids/],
      [cube, /tensor has shape \[1,2,3\], expected \[b, t\]/],
    ];
    for (const [ids, says] of cases) {
      const errors = [
        thrown(() => model.forward({ input_ids: ids as never })),
        await rejection(model.generate({ input_ids: ids as never })),
        await rejection(model.prefill(ids as never)),
      ];
      for (const error of errors) {
        expect(error).to.be.instanceOf(ArgumentError);
        expect(error.message).to.match(says);
      }
    }
    cube.dispose();
  });

  it('returns rows of ids, or all there is where that is asked for', async () => {
    const input_ids = [1, 2];
    expect(await model.generate({ input_ids, ...few, vocab_limit: 1 })).to.deep.equal([[1, 2, 0, 0, 0]]);
    const { generation_config } = model;
    model.generation_config = new GenerationConfig({ ...few, return_dict_in_generate: true });
    const all = (await model.generate({ input_ids })) as unknown as GenerateOutput;
    const want = await model.generate({ input_ids, return_dict_in_generate: null });
    expect(all.sequences).to.deep.equal(want);
    expect(all.new_tokens).to.deep.equal([want[0]!.slice(2)]);
    const other = new GenerationConfig({ max_new_tokens: 2 });
    const given = (await model.generate({ input_ids, generation_config: other })) as unknown as GenerateOutput;
    expect(given.new_tokens[0]).to.have.length(2);
    const off = new GenerationConfig({ return_dict_in_generate: null });
    expect(await model.generate({ input_ids, generation_config: off })).to.deep.equal(want);
    model.generation_config = generation_config;
  });
});
