/** Moments, snapshots, predictions and the end of training in forms that leave the event loop free: the numbers of the others, in pieces. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { DisposedError } from '../../src/base/errors.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { get_peft_model } from '../../src/peft/index.js';
import { AdamW, CausalLMTrainer } from '../../src/training/index.js';
import { prepareBatch } from '../../src/training/batch.js';
import { createStep } from '../../src/training/create_step.js';
import { loadSnapshot, saveSnapshot } from '../../src/training/snapshots.js';
import type { TrainingStep } from '../../src/training/step.js';
import { trainableOf } from '../../src/training/trainable.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { turnsDuring } from '../support/event_loop.js';
import { LEARNER } from '../support/tiny_model.js';

const EMBEDDING = 'backbone.embeddings.weight';
const row = [2, 3, 4, 5, 6, 7, 8, 9];
const state = {
  global_step: 1,
  max_steps: 1,
  epoch: 1,
  num_input_tokens_seen: 8,
  log_history: [],
  best_metric: null,
  best_step: null,
};

describe('training leaves the event loop free', () => {
  before(() => useBackend('tensorflow'));

  /** An embedding of 4 million values: four pieces where values are looked at, and 16 MB to be read. */
  const large = (): Mamba2ForCausalLM =>
    new Mamba2ForCausalLM(new Mamba2Config({ ...LEARNER, vocab_size: 2 ** 18, num_hidden_layers: 1 }));
  /** @param layers where turns between them are counted: so many that the clock lets others in, also where a layer takes a millisecond */
  const small = (layers = 1): Mamba2ForCausalLM =>
    new Mamba2ForCausalLM(new Mamba2Config({ ...LEARNER, num_hidden_layers: layers }));

  for (const engine of ['compiled', 'eager'] as const)
    it(`while moments are read, and after the step that was asked for before (${engine})`, async () => {
      // 2 MB a moment: what is read in less than 50 µs is waited for on the spot
      const vocab_size = 2 ** 15;
      const model = new Mamba2ForCausalLM(new Mamba2Config({ ...LEARNER, vocab_size }));
      const step = createStep(trainableOf(model), { engine, xla: false });
      const batch = prepareBatch({ input_ids: [row], labels: [row] }, vocab_size);
      const first = step.step([batch], 1e-2, 0);
      const soon = await step.moments(EMBEDDING);
      expect(step.steps).to.equal(1);
      expect(soon.first.some((v) => v !== 0)).to.equal(true);
      await first;
      await step.step([batch], 1e-2, 1);
      // what was read is not changed by later steps
      expect((await step.moments(EMBEDDING)).first).to.not.deep.equal(soon.first);
      const { turns, result } = await turnsDuring(() => step.moments(EMBEDDING));
      if (engine === 'compiled') expect(turns).to.be.greaterThan(0);
      expect(result.second.every((v) => v >= 0)).to.equal(true);
      step.dispose();
      model.dispose();
    });

  it('while a snapshot is written and restored, which gives the same bits', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'mamba2-free-'));
    const model = large();
    const [step, other] = [0, 1].map(() => createStep(trainableOf(model), { engine: 'eager' })) as [
      TrainingStep,
      TrainingStep,
    ];
    const size = model.weights.all()[EMBEDDING]!.shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: size }, (_, i) => (i % 1013) / 1013);
    const zeros = new Map([...trainableOf(model).trainable()].map(([name, v]) => [name, new Float32Array(v.size)]));
    await step.restore(1, (name) => {
      const own = name === EMBEDDING ? values : zeros.get(name)!;
      return { first: own, second: own };
    });
    const written = await turnsDuring(() => saveSnapshot(model, step, state, dir, null));
    expect(written.turns).to.be.greaterThan(8);
    const read = await turnsDuring(() => loadSnapshot(model, other, written.result));
    // three tensors of four pieces that are looked at
    expect(read.turns).to.be.greaterThan(9);
    expect(read.longest).to.be.lessThan(read.ms / 2);
    const { first, second } = await other.moments(EMBEDDING);
    expect(Buffer.compare(Buffer.from(first.buffer), Buffer.from(values.buffer))).to.equal(0);
    expect(Buffer.compare(Buffer.from(second.buffer), Buffer.from(values.buffer))).to.equal(0);
    for (const each of [step, other]) each.dispose();
    model.dispose();
    fs.rmSync(dir, { recursive: true });
  });

  it('while fit’s model predicts and is scored, as predict() does', async () => {
    const model = small(24);
    const trainer = new CausalLMTrainer(model);
    trainer.compile({ optimizer: new AdamW({ learningRate: 1e-2 }), metrics: ['accuracy'], step: { engine: 'eager' } });
    const before = (await trainer.predictAsync([row])).dataSync().slice();
    await trainer.trainOnBatch({ input_ids: [row], labels: [row] });
    const tensors = tensorCount().tf;
    const { turns, result } = await turnsDuring(() => trainer.predictAsync([row]));
    expect(turns).to.be.greaterThan(2);
    const once = trainer.predict([row]);
    expect(result.shape).to.deep.equal([1, 8, LEARNER.vocab_size]);
    expect(result.dataSync()).to.deep.equal(once.dataSync());
    expect(result.dataSync()).to.not.deep.equal(before);
    const { accuracy } = await trainer.evaluate([row]);
    const best = tf.tidy(() => tf.argMax(once, 2).dataSync());
    const hits = row.slice(1).filter((id, i) => best[i] === id).length;
    expect(accuracy).to.be.closeTo(hits / (row.length - 1), 1e-6);
    tf.dispose([result, once]);
    expect(tensorCount().tf).to.equal(tensors);
    trainer.dispose();
    model.dispose();
  });

  it('while fit’s step goes, which brings the last update to the model', async () => {
    const model = small();
    const trainer = new CausalLMTrainer(model);
    trainer.compile({ optimizer: new AdamW({ learningRate: 1e-2 }), step: { xla: false } });
    const weights = (): string => (model.weights.all()[EMBEDDING] as tf.Variable).dataSync().join();
    const before = weights();
    await trainer.trainOnBatch({ input_ids: [row], labels: [row] });
    expect(weights()).to.equal(before);
    await trainer.disposeAsync();
    expect(weights()).to.not.equal(before);
    expect(() => trainer.dispose()).to.not.throw();
    await trainer.disposeAsync();
    model.dispose();
  });

  it('while a model with an adapter runs forward, as forward() does', async () => {
    const model = small(24);
    const peft = get_peft_model(model, { r: 2, target_modules: ['in_proj'] }, { seed: 3 });
    const b = [...peft.trainable()].find(([name]) => name.includes('lora_B'))![1];
    tf.tidy(() => b.assign(tf.ones(b.shape)));
    const once = peft.forward({ input_ids: [row], use_cache: false }).logits;
    const { turns, result } = await turnsDuring(() => peft.forwardAsync({ input_ids: [row], use_cache: false }));
    expect(turns).to.be.greaterThan(2);
    expect(result.logits.dataSync()).to.deep.equal(once.dataSync());
    peft.disable_adapter_layers();
    const alone = await peft.forwardAsync({ input_ids: [row], use_cache: false });
    expect(alone.logits.dataSync()).to.not.deep.equal(once.dataSync());
    peft.enable_adapter_layers();
    tf.dispose([once, result.logits, alone.logits]);
    const gone = rejection(peft.forwardAsync({ input_ids: [row], use_cache: false }));
    peft.dispose();
    expect(await gone).to.be.instanceOf(DisposedError);
    expect(await rejection(peft.forwardAsync({ input_ids: [row] }))).to.be.instanceOf(DisposedError);
    model.dispose();
  });
});
