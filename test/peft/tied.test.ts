/** An embedding trained whole (modules_to_save) on a model with a tied head: the lookup changes, the head does not, as in PEFT. */
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { load_peft_model, type PeftModel } from '../../src/peft/index.js';
import { createStep, prepareBatch, trainableOf } from '../../src/training/index.js';
import { onBackends, tensorCount, useBackend } from '../support/backends.js';
import { expectClose, expectTensor } from '../support/compare.js';
import { fixture, loadCase, vectorOf } from '../support/goldens.js';
import { eightGreedy } from '../support/tiny_model.js';
import { mergeEachWay } from './support.js';

const golden = loadCase(fixture('lora-tied'));
const adapter = path.join(golden.dir, 'adapter');
const { input_ids, labels } = golden.inputs as Record<string, number[][]>;

async function base(engine: 'eager' | 'compiled' = 'eager'): Promise<Mamba2ForCausalLM> {
  const { config, source } = await loadCheckpoint(golden.dir);
  return new Mamba2ForCausalLM(config, source, { engine });
}
const logits = (model: PeftModel | Mamba2ForCausalLM): tf.Tensor3D =>
  model.forward({ input_ids: input_ids!, use_cache: false }).logits;

onBackends(['tensorflow', 'wasm', 'cpu'], 'lora-tied', () => {
  it('gives the logits of PEFT: active, merged in place, unmerged, and merged into a model of its own', async () => {
    const model = await base();
    const plain = tf.tidy(() => logits(model).dataSync().slice());
    const before = tensorCount();
    const peft = await load_peft_model(model, adapter);
    const check = (of: PeftModel | Mamba2ForCausalLM, what: string): void =>
      tf.tidy(() => expectTensor(logits(of), golden.tensor('logits'), 1e-4, what));
    check(peft, 'active');
    const whole = mergeEachWay(peft, check);
    expect(whole.config.tie_word_embeddings).to.equal(false);
    for (const name of ['lm_head.weight', 'backbone.embeddings.weight']) {
      const got = (whole.weights.all()[name] as tf.Tensor).dataSync();
      expect(got, name).to.deep.equal(golden.tensor(`merged.${name}`).data);
    }
    whole.dispose();
    peft.dispose();
    expect(tf.tidy(() => logits(model).dataSync())).to.deep.equal(plain);
    expect(tensorCount()).to.deep.equal(before);
    model.dispose();
  });
});

describe('training lora-tied', function () {
  this.timeout(240_000);
  before(() => useBackend('tensorflow'));

  it('gives the loss and the gradient of every tensor', async () => {
    const model = await base();
    const peft = await load_peft_model(model, adapter);
    const loss = (): tf.Scalar => peft.forward({ input_ids: input_ids!, labels, use_cache: false }).loss!;
    tf.tidy(() => {
      const trainable = peft.trainable();
      const { value, grads } = tf.variableGrads(loss, [...trainable.values()]);
      expectClose(value, golden.tensor('loss').data, 1e-5, 'loss');
      for (const [key, variable] of trainable)
        expectTensor(grads[variable.name]!, golden.tensor(`grad.base_model.model.${key}`), 1e-4, key);
    });
    peft.dispose();
    model.dispose();
  });

  for (const engine of ['eager', 'compiled'] as const) {
    it(`evaluates and trains on it (${engine})`, async () => {
      const model = await base();
      const head = (model.weights.all()['backbone.embeddings.weight'] as tf.Tensor).dataSync().slice();
      const peft = await load_peft_model(model, adapter);
      const batch = prepareBatch({ input_ids: input_ids!, labels: labels! }, model.config.vocab_size);
      const step = createStep(trainableOf(peft), { engine, xla: false });
      expectClose([(await step.evaluate(batch)) / batch.items], golden.tensor('loss').data, 1e-5, 'loss');
      const { loss, grad_norm: gradNorm } = await step.step([batch], 1e-2, 0);
      expectClose([loss], golden.tensor('loss').data, 1e-5, 'loss of a step');
      let squares = 0;
      for (const [name, { data }] of golden.expected)
        if (name.startsWith('grad.')) data.forEach((x) => (squares += x * x));
      expectClose([gradNorm], [Math.sqrt(squares)], 1e-4, 'gradients');
      const after = await step.evaluate(batch);
      await step.sync();
      step.dispose();
      const trained = tf.tidy(
        () => peft.forward({ input_ids: input_ids!, labels, use_cache: false }).loss!.dataSync()[0]!,
      );
      expectClose([after / batch.items], [trained], 1e-5, 'after a step');
      expect(trained).to.be.below(loss);
      expect((peft.frozen()['backbone.embeddings.weight'] as tf.Tensor).dataSync()).to.deep.equal(head);
      peft.dispose();
      model.dispose();
    });
  }

  it('writes the same compiled and eager, merged too', async () => {
    const texts: number[][][] = [];
    for (const engine of ['eager', 'compiled'] as const) {
      const model = await base(engine);
      const peft = await load_peft_model(model, adapter);
      const write = (): Promise<number[]> => eightGreedy(peft, input_ids![0]!);
      const own = [await write()];
      peft.merge_adapter();
      own.push(await write());
      texts.push(own);
      peft.dispose();
      model.dispose();
    }
    expect(texts[1]).to.deep.equal(texts[0]);
    expect(texts[0]![1]).to.deep.equal(texts[0]![0]);
    // the first of the new tokens is the one of PEFT
    const prompt = input_ids![0]!.length;
    const next = vectorOf(golden.tensor('logits'), 0, prompt - 1);
    expect(texts[0]![0]![prompt]).to.equal(next.indexOf(Math.max(...next)));
  });
});
