/** Adapters made by PEFT: logits, merged weights, loss, gradients and AdamW steps against torch in float64. */
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import type { PeftModel } from '../../src/peft/index.js';
import { load_adapter, load_peft_model } from '../../src/peft/index.js';
import { AdamW } from '../../src/training/adamw_optimizer.js';
import { onBackends, tensorCount, useBackend } from '../support/backends.js';
import { expectClose, expectTensor, largestDifference } from '../support/compare.js';
import { type AdamWSettings, foldersWith, loadGolden } from '../support/goldens.js';

const golden = loadGolden('lora');
const input_ids = golden.inputs.input_ids as number[][];
const labels = golden.inputs.labels as number[][];
const settings = golden.inputs.adamw as AdamWSettings;
const adapters = foldersWith(golden, 'adapter_config.json');

async function base(): Promise<Mamba2ForCausalLM> {
  const { config, source } = await loadCheckpoint(golden.dir);
  return new Mamba2ForCausalLM(config, source);
}
const logits = (model: PeftModel | Mamba2ForCausalLM): tf.Tensor3D =>
  model.forward({ input_ids, use_cache: false }).logits;

for (const name of adapters) {
  const dir = path.join(golden.dir, name);
  onBackends(['tensorflow', 'wasm', 'cpu'], `lora/${name} forward`, () => {
    it('gives the logits with the adapter, without it, merged, and unmerged', async () => {
      const model = await base();
      const plain = tf.tidy(() => logits(model).dataSync().slice());
      expectClose(plain, golden.tensor('base.logits').data, 1e-4, 'base');
      const before = tensorCount();
      const peft = await load_peft_model(model, dir);
      const check = (what: string): void =>
        tf.tidy(() => expectTensor(logits(peft), golden.tensor(`${name}.logits`), 1e-4, what));
      check('active');
      await peft.with_adapters_disabled(() => expect(tf.tidy(() => logits(peft).dataSync())).to.deep.equal(plain));
      check('enabled again');
      peft.merge_adapter({ safe_merge: true });
      check('merged');
      const prefix = `${name}.merged.`;
      const merged = [...golden.expected.keys()].filter((key) => key.startsWith(prefix));
      expect(merged, 'merged weights').to.not.deep.equal([]);
      for (const key of merged)
        expectTensor(peft.frozen()[key.slice(prefix.length)] as tf.Tensor, golden.tensor(key), 1e-6, key);
      peft.unmerge_adapter();
      check('unmerged');
      const whole = peft.merge_and_unload();
      tf.tidy(() => expectTensor(logits(whole), golden.tensor(`${name}.logits`), 1e-4, 'unloaded'));
      whole.dispose();
      expect(tf.tidy(() => logits(peft.unload()).dataSync())).to.deep.equal(plain);
      expect(tensorCount()).to.deep.equal(before);
      model.dispose();
    });
  });

  describe(`lora/${name} training`, () => {
    let model: Mamba2ForCausalLM;
    let peft: PeftModel;
    const loss = (): tf.Scalar => peft.forward({ input_ids, labels, use_cache: false }).loss!;
    before(() => useBackend('tensorflow'));
    beforeEach(async () => {
      model = await base();
      peft = await load_peft_model(model, dir);
    });
    afterEach(() => {
      peft.dispose();
      model.dispose();
    });

    it('gives the loss and the gradient of every adapter tensor', () => {
      tf.tidy(() => {
        const trainable = peft.trainable();
        const { value, grads } = tf.variableGrads(loss, [...trainable.values()]);
        expectClose(value, golden.tensor(`${name}.loss`).data, 1e-5, 'loss');
        for (const [key, variable] of trainable)
          expectTensor(grads[variable.name]!, golden.tensor(`${name}.grad.base_model.model.${key}`), 1e-4, key);
      });
    });

    it('follows the optimiser on the adapter alone', () => {
      const list = [...peft.trainable().values()];
      const optimizer = new AdamW({
        learningRate: settings.lr,
        beta1: settings.betas[0],
        beta2: settings.betas[1],
        epsilon: settings.eps,
        weightDecay: settings.weight_decay,
        maxGradNorm: settings.max_grad_norm,
      });
      const frozen = (peft.frozen()['backbone.layers.0.mixer.in_proj.weight'] as tf.Tensor).dataSync().slice();
      const [losses, norms]: [number[], number[]] = [[], []];
      for (let step = 0; step < settings.steps; step++) {
        const value = optimizer.minimize(loss, true, list)!;
        losses.push(value.dataSync()[0]!);
        norms.push(optimizer.lastGradNorm!);
        value.dispose();
      }
      losses.push(tf.tidy(() => loss().dataSync()[0]!));
      expectClose(losses, golden.tensor(`${name}.adamw.losses`).data, 1e-4, 'losses');
      expectClose(norms, golden.tensor(`${name}.adamw.grad_norms`).data, 1e-4, 'norms');
      let [entries, far] = [0, 0];
      for (const [key, variable] of peft.trainable()) {
        const got = variable.dataSync();
        const want = golden.tensor(`${name}.final.base_model.model.${key}`).data;
        expect(largestDifference(got, want).difference, key).to.be.at.most(2e-3);
        entries += got.length;
        got.forEach((value, i) => (far += Math.abs(value - want[i]!) > 1e-4 ? 1 : 0));
      }
      expect(far / entries).to.be.at.most(0.001);
      expect((peft.frozen()['backbone.layers.0.mixer.in_proj.weight'] as tf.Tensor).dataSync()).to.deep.equal(frozen);
      optimizer.dispose();
    });
  });
}

describe('several adapters', () => {
  before(() => useBackend('tensorflow'));
  it('switches between them and adds them up', async () => {
    const model = await base();
    const [first, second] = adapters as [string, string];
    const peft = await load_peft_model(model, path.join(golden.dir, first), { adapter_name: 'one' });
    await load_adapter(peft, path.join(golden.dir, second), 'two');
    const check = (want: string): void => tf.tidy(() => expectTensor(logits(peft), golden.tensor(want), 1e-4, want));
    check(`${first}.logits`);
    peft.set_adapter('two');
    check(`${second}.logits`);
    // together: the sum of both products, as merging one after the other gives it
    peft.set_adapter(['one', 'two']);
    const both = tf.tidy(() => logits(peft).dataSync().slice());
    const merged = peft.merge_and_unload();
    tf.tidy(() => expectClose(logits(merged), both, 1e-4, 'both'));
    expect(largestDifference(both, golden.tensor(`${first}.logits`).data).difference).to.be.above(1e-2);
    merged.dispose();
    peft.dispose();
    model.dispose();
  });
});
