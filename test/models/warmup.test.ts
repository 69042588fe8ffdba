/** model.warmup(): what generate() runs is compiled beforehand. */
import { expect } from 'chai';
import { ArgumentError, DisposedError } from '../../src/base/errors.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { get_peft_model } from '../../src/peft/index.js';
import { useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';

describe('model.warmup()', function () {
  this.timeout(120_000);
  before(() => useBackend('tensorflow'));

  it('leaves nothing to compile to the calls that it names', async () => {
    const compiled: string[] = [];
    const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2', {
      engine: 'compiled',
      on_compile: (name, phase, ms) => void (phase === 'compile' && ms !== null && compiled.push(name)),
    });
    try {
      await model.warmup({ lengths: [3], generation: { do_sample: false } });
      const before = compiled.length;
      expect(before).to.be.above(1);
      const [ids] = await model.generate({ input_ids: [[319, 257, 284]], max_new_tokens: 12, do_sample: false });
      expect(ids!.length).to.be.above(3);
      expect(compiled.slice(before)).to.deep.equal([]);
      for (const [options, message] of [
        [{ batch: [1] }, /model\.warmup\(\).*Did you mean batches\?/],
        [{ lengths: [0] }, /lengths is \[0\]/],
        [{ generation: { do_sampel: true } }, /Did you mean do_sample\?/],
      ] as const)
        expect((await rejection(model.warmup(options as object))).message).to.match(message);
      expect(await rejection(model.warmup({ batches: [] }))).to.be.instanceOf(ArgumentError);
    } finally {
      model.dispose();
    }
  });

  it('is there with adapters, on the eager engine too', async () => {
    const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2', { engine: 'eager' });
    const peft = get_peft_model(model, { r: 2 }, { seed: 1 });
    await peft.warmup({ lengths: [2], generation: { do_sample: false } });
    peft.dispose();
    expect(await rejection(peft.warmup())).to.be.instanceOf(DisposedError);
    model.dispose();
  });
});
