/** Weights as tensors whose values stay in the file until an op wants them. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { publicConfig, writeRandomCheckpoint } from '../../bench/random_checkpoint.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { get_peft_model } from '../../src/peft/index.js';
import { isHeld } from '../../src/runtime/binding.js';
import { createStep, prepareBatch, trainableOf } from '../../src/training/index.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';

const row = [5, 9, 2, 77, 3, 10, 4, 400];

describe('weights that stay in their file', function () {
  this.timeout(120_000);
  let dir = '';
  before(async () => {
    await useBackend('tensorflow');
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'file-tensors-'));
    await writeRandomCheckpoint(dir, publicConfig('tiny'), 'BF16');
  });
  after(() => fs.rmSync(dir, { recursive: true, force: true }));

  const load = (): Promise<Mamba2ForCausalLM> => Mamba2ForCausalLM.from_pretrained(dir);
  /** Names of the model's variables whose values TensorFlow holds. */
  const held = (model: Mamba2ForCausalLM): string[] =>
    model.network
      .weightSpecs()
      .map(({ name }) => name)
      .filter((name) => isHeld(model.weights.base(name)!.dataId));
  const batch = prepareBatch({ input_ids: [row], labels: [row] }, 512);

  it('hold nothing until an op wants them, and have their values for readers', async () => {
    const before = tensorCount();
    const model = await load();
    const weights = model.weights.all();
    expect(held(model)).to.deep.equal([]);
    for (const [name, weight] of Object.entries(weights)) {
      const expected = await model.weights.source!.readFloat32(name);
      expectClose((weight as tf.Tensor).dataSync(), expected, 0, name);
      expectClose(await (weight as tf.Tensor).data(), expected, 0, name);
    }
    expect(held(model)).to.deep.equal([]);
    const norm = weights['backbone.norm_f.weight'] as tf.Tensor;
    const sum = tf.tidy(() => tf.sum(norm).dataSync()[0]);
    expect(sum).to.equal(norm.size);
    expect(held(model)).to.deep.equal(['backbone.norm_f.weight']);
    model.dispose();
    expect(tensorCount()).to.deep.equal(before);
  });

  for (const bf16 of [false, true])
    it(`are not copied to the host to train an adapter${bf16 ? ' in bf16' : ''}: the program takes them from the file`, async () => {
      const model = await load();
      const peft = get_peft_model(model, { r: 2, target_modules: ['in_proj', 'out_proj', 'embeddings'] }, { seed: 1 });
      const step = createStep(trainableOf(peft), { engine: 'compiled', bf16 });
      const { loss } = await step.step([batch], 1e-3, 1);
      expect(held(model)).to.deep.equal([]);
      const eager = createStep(trainableOf(peft), { engine: 'eager', bf16 });
      const before = (await eager.evaluate(batch)) / batch.items;
      expectClose([loss], [before], bf16 ? 1e-2 : 1e-5);
      expect(held(model)).to.not.deep.equal([]);
      step.dispose();
      eager.dispose();
      peft.dispose();
      model.dispose();
    });

  it('go to the program of a model that is trained whole, and have new values afterwards', async () => {
    const model = await load();
    const step = createStep(trainableOf(model), { engine: 'compiled' });
    await step.step([batch], 1e-2, 1);
    expect(held(model)).to.deep.equal([]);
    const name = 'backbone.layers.0.mixer.out_proj.weight';
    const first = await model.weights.source!.readFloat32(name);
    await step.sync();
    const after = model.weights.base(name)!.dataSync<'float32'>();
    expect(after.some((value, i) => Math.abs(value - first[i]!) > 1e-3)).to.equal(true);
    step.dispose();
    model.dispose();
  });

  it('are read before the file is closed where another model has taken them over', async () => {
    const model = await load();
    const peft = get_peft_model(model, { r: 2, target_modules: ['out_proj'], init_lora_weights: false }, { seed: 1 });
    const logits = (of: { forward: Mamba2ForCausalLM['forward'] }): Float32Array =>
      tf.tidy(() =>
        of
          .forward({ input_ids: [row], use_cache: false })
          .logits.dataSync<'float32'>()
          .slice(),
      );
    const merged = peft.merge_and_unload();
    const expected = await model.weights.source!.readFloat32('backbone.layers.1.mixer.in_proj.weight');
    const before = logits(peft);
    peft.dispose();
    model.dispose();
    expectClose(
      merged.weights.base('backbone.layers.1.mixer.in_proj.weight')!.dataSync(),
      expected,
      0,
      'a weight without an adapter',
    );
    expectClose(logits(merged), before, 1e-4);
    merged.dispose();
  });
});
