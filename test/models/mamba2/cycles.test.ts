/** Models that are loaded and disposed of again and again: nothing stays, neither tensors nor open files nor memory. */
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/index.js';
import { load_peft_model } from '../../../src/peft/index.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { fixture } from '../../support/goldens.js';
import { descriptors, leftOpenUnder, openUnder, tellsOpenFiles } from '../../support/open_files.js';

describe('200 times loaded and disposed of', function () {
  this.timeout(240_000);
  before(() => useBackend('tensorflow'));

  it('a model with an adapter leaves nothing behind', async function () {
    if (!tellsOpenFiles) return this.skip();
    const dir = fixture('lora-saved');
    const once = async (): Promise<void> => {
      const model = await Mamba2ForCausalLM.from_pretrained(path.join(dir, 'base-untied'), { engine: 'eager' });
      const peft = await load_peft_model(model, path.join(dir, 'saved-changed'));
      tf.dispose(peft.forward({ input_ids: [[1, 2, 3]], use_cache: false }).logits);
      peft.dispose();
      model.dispose();
    };
    const open = openUnder(dir);
    for (let i = 0; i < 20; i++) await once();
    const before = { tensors: tensorCount(), descriptors: descriptors(), memory: process.memoryUsage().rss };
    for (let i = 0; i < 180; i++) await once();
    expect(tensorCount()).to.deep.equal(before.tensors);
    expect(await leftOpenUnder(dir, open)).to.equal(0);
    // the process opens others meanwhile, for itself; a descriptor left by each load would be 180
    expect(descriptors() - before.descriptors).to.be.below(18);
    expect(process.memoryUsage().rss - before.memory).to.be.below(150 * 2 ** 20);
  });
});
