/** What may be done with a model while its adapters are merged, and what is refused rather than done wrongly. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError } from '../../src/base/errors.js';
import type { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { get_peft_model, type LoraConfigFields, type PeftModel } from '../../src/peft/index.js';
import { createStep, prepareBatch, trainableOf } from '../../src/training/index.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { rejection, thrown } from '../support/errors.js';
import { tinyModel } from '../support/tiny_model.js';

const row = [1, 5, 2, 9, 3, 10, 4, 4];

function adapted(
  fields: Partial<LoraConfigFields> = {},
  sizes: Parameters<typeof tinyModel>[0] = {},
): { model: Mamba2ForCausalLM; peft: PeftModel } {
  const { model } = tinyModel(sizes);
  return { model, peft: get_peft_model(model, { r: 2, init_lora_weights: false, ...fields }, { seed: 3 }) };
}

describe('merged adapters', function () {
  this.timeout(120_000);
  before(() => useBackend('tensorflow'));

  for (const engine of ['eager', 'compiled'] as const) {
    it(`are neither trained nor evaluated: they would count twice (${engine})`, async () => {
      const { model, peft } = adapted();
      const loss = (): number =>
        tf.tidy(() => peft.forward({ input_ids: [row], labels: [row], use_cache: false }).loss!.dataSync()[0]!);
      const batch = prepareBatch({ input_ids: [row], labels: [row] }, 11);
      const step = createStep(trainableOf(peft), { engine, xla: false });
      const evaluate = async (): Promise<number> => (await step.evaluate(batch)) / batch.items;
      peft.merge_adapter();
      const merged = loss();
      const error = thrown(() => createStep(trainableOf(peft), { engine, xla: false }));
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message).to.match(/merged; call unmerge_adapter\(\) first/);
      // a step from before does not see the merged weights as its base either
      const refused = await evaluate().then(
        () => null,
        (reason: unknown) => reason,
      );
      expect(refused).to.be.instanceOf(ArgumentError);
      expect(peft.get_nb_trainable_parameters().trainable).to.be.above(0);
      peft.unmerge_adapter();
      expectClose([await evaluate()], [merged], 1e-5, 'unmerged again');
      step.dispose();
      peft.dispose();
      model.dispose();
    });
  }

  it('of a tied embedding, or beside their matrices, are not saved as plain weights; what merging can say is', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'merged-'));
    const saved = async (model: Mamba2ForCausalLM, name: string): Promise<Float32Array> => {
      await model.save_pretrained(dir);
      const { source } = await loadCheckpoint(dir);
      const values = await source.readFloat32(name);
      await source.close();
      return values;
    };
    const refused = async (model: Mamba2ForCausalLM): Promise<void> => {
      const error = await rejection(model.save_pretrained(path.join(dir, 'none')));
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message).to.match(/merge_and_unload/);
      expect(fs.existsSync(path.join(dir, 'none'))).to.equal(false);
    };
    for (const tie_word_embeddings of [true, false]) {
      const { model, peft } = adapted({ target_modules: ['embeddings'] }, { tie_word_embeddings });
      const name = 'backbone.embeddings.weight';
      const plain = (peft.frozen()[name] as tf.Tensor).dataSync<'float32'>().slice();
      await refused(model);
      peft.merge_adapter();
      // untied, the merged variable says all; tied, it would be the head's too
      if (tie_word_embeddings) await refused(model);
      else {
        const merged = (peft.frozen()[name] as tf.Tensor).dataSync<'float32'>().slice();
        expect(merged).to.not.deep.equal(plain);
        expect(await saved(model, name)).to.deep.equal(merged);
      }
      peft.unload();
      expect(await saved(model, name)).to.deep.equal(plain);
      model.dispose();
    }
    fs.rmSync(dir, { recursive: true });
  });

  it('that cannot be merged leave no tensor and no memory behind', () => {
    const { model, peft } = adapted({ target_modules: ['in_proj', 'lm_head'] }, { tie_word_embeddings: true });
    const attempt = (): void => {
      for (const merge of [(): unknown => peft.merge_adapter(), (): unknown => peft.merge_and_unload()])
        expect(thrown(merge).message).to.match(/'lm_head' into a tied model/);
    };
    attempt(); // brings the variables to the device
    const before = tensorCount();
    attempt();
    expect(tensorCount()).to.deep.equal(before);
    peft.unload();
    const broken = adapted({ target_modules: ['in_proj'] });
    [...broken.peft.trainable().values()][0]!.assign(tf.fill([2, 6], NaN));
    const unsafe = (): unknown => broken.peft.merge_adapter({ safe_merge: true });
    expect(thrown(unsafe).message).to.match(/not finite/);
    const whole = tensorCount();
    expect(thrown(unsafe).message).to.match(/not finite/);
    expect(tensorCount()).to.deep.equal(whole);
    for (const x of [broken.peft, broken.model, model]) x.dispose();
  });
});
