/** Adapters on a quantised base: the base stays packed, the adapter learns, and both are saved apart. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2Config, Mamba2ForCausalLM, quantize } from '../../src/models/mamba2/index.js';
import { isStored } from '../../src/layers/index.js';
import { get_peft_model } from '../../src/peft/index.js';
import { Int4WeightOnlyConfig } from '../../src/quant/index.js';
import { createStep, prepareBatch, trainableOf } from '../../src/training/index.js';
import { useBackend } from '../support/backends.js';

describe('an adapter on an int4 model', () => {
  before(() => useBackend('tensorflow'));

  for (const engine of ['eager', 'compiled'] as const) {
    it(`learns while the base stays packed (${engine})`, async () => {
      const model = new Mamba2ForCausalLM(
        new Mamba2Config({
          hidden_size: 64,
          num_heads: 4,
          head_dim: 32,
          n_groups: 1,
          state_size: 16,
          vocab_size: 96,
          num_hidden_layers: 1,
          chunk_size: 16,
          tie_word_embeddings: true,
        }),
      );
      await quantize(model, new Int4WeightOnlyConfig({ group_size: 32 }));
      const name = 'backbone.layers.0.mixer.in_proj.weight';
      expect(isStored(model.weights.all()[name]!)).to.equal(true);
      const before = tf.tidy(() =>
        model
          .forward({ input_ids: [[1, 2, 3]], use_cache: false })
          .logits.dataSync()
          .slice(),
      );
      const peft = get_peft_model(model, { r: 4, target_modules: ['in_proj', 'out_proj'] }, { seed: 1 });
      expect(() => peft.merge_adapter()).to.throw(/quantised/);
      const row = Array.from({ length: 16 }, (_, i) => (i * 5) % 96);
      const batch = prepareBatch({ input_ids: [row], labels: [row] }, 96);
      const step = createStep(trainableOf(peft), { engine, xla: false });
      const losses: number[] = [];
      for (let i = 0; i < 8; i++) losses.push((await step.step([batch], 1e-2, i)).loss);
      expect(losses[7]).to.be.below(losses[0]! * 0.95);
      await step.sync();
      step.dispose();
      const changed = tf.tidy(() =>
        peft
          .forward({ input_ids: [[1, 2, 3]], use_cache: false })
          .logits.dataSync()
          .slice(),
      );
      expect(changed).to.not.deep.equal(before);
      peft.dispose();
      expect(
        tf.tidy(() => model.forward({ input_ids: [[1, 2, 3]], use_cache: false }).logits.dataSync()),
      ).to.deep.equal(before);
      expect(() => trainableOf(model).trainable()).to.throw(/quantised.*adapter/);
      model.dispose();
    });
  }
});
