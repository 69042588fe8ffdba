/** Generation with adapters: the compiled engine writes what the eager one does, adapter on, merged, and off. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { get_peft_model } from '../../src/peft/index.js';
import { useBackend } from '../support/backends.js';
import { eightGreedy, LEARNER } from '../support/tiny_model.js';

describe('generating with an adapter', function () {
  this.timeout(240_000);
  before(() => useBackend('tensorflow'));

  it('is the same compiled and eager', async () => {
    const config = LEARNER;
    const texts: number[][][] = [];
    let weights: tf.Tensor[] | null = null;
    for (const engine of ['eager', 'compiled'] as const) {
      const model = new Mamba2ForCausalLM(new Mamba2Config(config), null, { engine });
      const variables = Object.values(model.weights.all()) as tf.Variable[];
      if (weights) variables.forEach((v, i) => v.assign(weights![i]!));
      else weights = variables.map((v) => tf.clone(v));
      const write = (): Promise<number[]> => eightGreedy(model, [3, 4, 5]);
      const own = [await write()];
      const peft = get_peft_model(
        model,
        { r: 4, lora_alpha: 16, init_lora_weights: false, target_modules: ['in_proj', 'embeddings'] },
        { seed: 3 },
      );
      own.push(await write());
      peft.merge_adapter();
      own.push(await write());
      peft.dispose();
      own.push(await write());
      texts.push(own);
      model.dispose();
    }
    expect(texts[1]).to.deep.equal(texts[0]);
    const [plain, adapted, merged, after] = texts[0]!;
    expect(adapted).to.not.deep.equal(plain);
    expect(merged).to.deep.equal(adapted);
    expect(after).to.deep.equal(plain);
    tf.dispose(weights!);
  });
});
