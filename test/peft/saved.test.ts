/** Adapter files that hold more than factors: embeddings and heads, saved or trained whole, tied or not. Expected logits are PEFT's. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { CheckpointError } from '../../src/base/errors.js';
import { SafetensorsFile, writeSafetensors } from '../../src/checkpoints/index.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import {
  get_peft_model,
  load_adapter,
  load_peft_model,
  LoraConfig,
  type PeftModel,
  save_adapter,
} from '../../src/peft/index.js';
import { onBackends, tensorCount, useBackend } from '../support/backends.js';
import { folderForEach } from '../support/cleanup.js';
import { expectTensor } from '../support/compare.js';
import { rejection } from '../support/errors.js';
import { fixture, loadCase } from '../support/goldens.js';
import { eightGreedy } from '../support/tiny_model.js';
import { mergeEachWay } from './support.js';

const DIR = fixture('lora-saved');
const { input_ids, cases } = JSON.parse(fs.readFileSync(path.join(DIR, 'inputs.json'), 'utf8')) as {
  input_ids: number[][];
  cases: Record<string, 'tied' | 'untied'>;
};

async function base(name: string, engine: 'eager' | 'compiled' = 'eager'): Promise<Mamba2ForCausalLM> {
  const { config, source } = await loadCheckpoint(path.join(DIR, `base-${cases[name]}`));
  return new Mamba2ForCausalLM(config, source, { engine });
}
const logits = (model: PeftModel | Mamba2ForCausalLM): tf.Tensor3D =>
  model.forward({ input_ids, use_cache: false }).logits;

onBackends(['tensorflow', 'cpu'], 'adapters with embeddings and heads', () => {
  for (const name of Object.keys(cases))
    it(`${name}: PEFT's logits; merged, unmerged, and merged into a model of its own`, async () => {
      const golden = loadCase(DIR);
      const model = await base(name);
      const plain = tf.tidy(() => logits(model).dataSync().slice());
      const before = tensorCount();
      const peft = await load_peft_model(model, path.join(DIR, name));
      const check = (of: PeftModel | Mamba2ForCausalLM, what: string): void =>
        tf.tidy(() => expectTensor(logits(of), golden.tensor(name), 1e-4, what));
      check(peft, 'active');
      // factors of a tied head have no matrix of their own to go into
      if (!name.startsWith('shared')) mergeEachWay(peft, check).dispose();
      peft.dispose();
      expect(tf.tidy(() => logits(model).dataSync())).to.deep.equal(plain);
      expect(tensorCount()).to.deep.equal(before);
      model.dispose();
    });
});

describe('rows of single tokens', () => {
  const folder = folderForEach('token-rows');
  before(() => useBackend('tensorflow'));

  it('are there again after the adapter is saved, and gone when it is', async () => {
    const golden = loadCase(DIR);
    const model = await base('tokens-tied');
    const peft = await load_peft_model(model, path.join(DIR, 'tokens-tied'));
    await save_adapter(peft, folder());
    peft.dispose();
    expect(JSON.parse(fs.readFileSync(path.join(folder(), 'adapter_config.json'), 'utf8'))).to.not.have.property(
      'trainable_token_indices',
    );
    const again = await load_peft_model(model, folder());
    tf.tidy(() => expectTensor(logits(again), golden.tensor('tokens-tied'), 1e-4, 'read again'));
    again.dispose();
    model.dispose();
  });

  it('that do not fit are errors with the name of the tensor', async () => {
    const model = await base('tokens-tied');
    for (const [indices, message] of [
      [[7, 3], /trainable_tokens_delta' has shape \[3, 16\]; expected \[2, 16\]/],
      [[7, 3, 31], /is of the id 31, and this base model has 31/],
      [{ lm_head: [7, 3, 30] }, /trainable_token_indices does not name/],
      [[7, 3, -1], /trainable_token_indices is .*expected ids, or ids by module/],
    ] as const) {
      fs.cpSync(path.join(DIR, 'tokens-tied'), folder(), { recursive: true });
      const file = path.join(folder(), 'adapter_config.json');
      const fields = JSON.parse(fs.readFileSync(file, 'utf8')) as object;
      fs.writeFileSync(file, JSON.stringify({ ...fields, trainable_token_indices: indices }));
      expect((await rejection(load_peft_model(model, folder()))).message).to.match(message);
    }
    model.dispose();
  });
});

describe('a tied head and its embedding, both trained whole', () => {
  before(() => useBackend('tensorflow'));

  it('are two matrices, or with ensure_weight_tying one, as in PEFT', async () => {
    const model = await base('both-tied');
    const modules_to_save = ['embeddings', 'lm_head'];
    const two = get_peft_model(model, { r: 2, modules_to_save });
    expect([...two.trainable().keys()]).to.include.members(['backbone.embeddings.weight', 'lm_head.weight']);
    expect(two.targets().get('lm_head.weight')).to.equal('backbone.embeddings.weight');
    two.dispose();
    const one = get_peft_model(model, new LoraConfig({ r: 2, modules_to_save, ensure_weight_tying: true }));
    expect([...one.trainable().keys()].filter((key) => !key.includes('lora'))).to.deep.equal([
      'backbone.embeddings.weight',
    ]);
    const zeros = tf.zeros([31, 16]);
    one.trainable().get('backbone.embeddings.weight')!.assign(zeros);
    expect(tf.tidy(() => tf.max(tf.abs(logits(one))).dataSync()[0])).to.equal(0); // the head's are zero as well
    const whole = one.merge_and_unload();
    expect(whole.config.tie_word_embeddings).to.equal(true);
    [whole, one, model, zeros].forEach((made) => made.dispose());
  });
});

describe('adapter files', function () {
  this.timeout(240_000);
  const folder = folderForEach('adapter-files');
  before(() => useBackend('tensorflow'));

  /** The case's files with its tensors renamed or changed. */
  async function copy(
    name: string,
    change: (key: string, shape: readonly number[]) => [string, number[]],
  ): Promise<string> {
    const dir = folder();
    fs.copyFileSync(path.join(DIR, name, 'adapter_config.json'), path.join(dir, 'adapter_config.json'));
    const file = await SafetensorsFile.open(path.join(DIR, name, 'adapter_model.safetensors'));
    const tensors = await Promise.all(
      [...file.entries].map(async ([key, { dtype, shape }]) => {
        const [renamed, size] = change(key, shape);
        const bytes = new Uint8Array(size.reduce((a, b) => a * b, 4));
        bytes.set((await file.read(key)).subarray(0, bytes.length));
        return { name: renamed, dtype, shape: size, data: () => bytes };
      }),
    );
    await file.close();
    await writeSafetensors(path.join(dir, 'adapter_model.safetensors'), tensors);
    return dir;
  }

  it('are read with other prefixes, and with the names of adapters in their keys', async () => {
    const golden = loadCase(DIR);
    const named = (key: string): string =>
      key
        .replace(/(lora_[AB])\.weight/, '$1.default.weight')
        .replace(/(lora_embedding_[AB])$/, '$1.default')
        .replace(/^(.*(?:embeddings|lm_head))\.weight$/, '$1.modules_to_save.default.weight');
    for (const [name, rename] of [
      ['both', (key: string) => key.replace('base_model.model.', '')],
      ['both', (key: string) => `module._orig_mod.${key}`],
      ['both-tied', named],
      ['target-ensured', named],
    ] as const) {
      const model = await base(name);
      const dir = await copy(name, (key, shape) => [rename(key), [...shape]]);
      const peft = await load_peft_model(model, dir);
      tf.tidy(() => expectTensor(logits(peft), golden.tensor(name), 1e-4, name));
      peft.dispose();
      model.dispose();
    }
  });

  it('of a resized vocabulary are refused with what to do, and nothing is left behind', async () => {
    const model = await base('saved');
    logits(model).dispose();
    const before = tensorCount();
    const dir = await copy('saved', (key, shape) => [key, shape[0] === 31 ? [29, 16] : [...shape]]);
    const error = await rejection(load_peft_model(model, dir));
    expect(error).to.be.instanceOf(CheckpointError);
    expect(error.message).to.match(/vocabulary of 29.*resize_token_embeddings\(29\)/);
    const peft = get_peft_model(model, { r: 2 }, { seed: 1 });
    await rejection(load_adapter(peft, dir, 'other'));
    expect(Object.keys(peft.peft_config)).to.deep.equal(['default']);
    peft.dispose();
    expect(tensorCount()).to.deep.equal(before);
    model.dispose();
  });

  it('are written so that they are read again, and write the same text compiled and eager', async () => {
    for (const name of ['both-tied', 'both-ensured', 'saved-changed-tied', 'target-saved-changed']) {
      const texts: unknown[] = [];
      for (const engine of ['eager', 'compiled'] as const) {
        const model = await base(name, engine);
        const peft = await load_peft_model(model, path.join(DIR, name));
        texts.push(await eightGreedy(peft.base_model, [3, 7, 1]));
        await save_adapter(peft, folder());
        const want = tf.tidy(() => logits(peft).dataSync().slice());
        peft.dispose();
        const again = await load_peft_model(model, folder());
        expect(
          tf.tidy(() => logits(again).dataSync()),
          name,
        ).to.deep.equal(want);
        again.dispose();
        model.dispose();
      }
      expect(texts[1], name).to.deep.equal(texts[0]);
    }
  });
});
