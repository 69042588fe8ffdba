/** The training step, eager and compiled: loss, norms and parameters of five AdamW steps against torch in float64. */
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { DeviceError } from '../../src/base/errors.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { get_peft_model, load_peft_model, type PeftModel } from '../../src/peft/index.js';
import { prepareBatch } from '../../src/training/batch.js';
import { type TrainableModel, trainableOf } from '../../src/training/trainable.js';
import { createStep } from '../../src/training/create_step.js';
import type { StepOptions, TrainingStep } from '../../src/training/step.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { expectClose, largestDifference } from '../support/compare.js';
import { type AdamWSettings, foldersWith, type Golden, loadGolden } from '../support/goldens.js';
import { rejection } from '../support/errors.js';
import { LEARNER, tinyModel } from '../support/tiny_model.js';

async function load(golden: Golden): Promise<Mamba2ForCausalLM> {
  const { config, source } = await loadCheckpoint(golden.dir);
  return new Mamba2ForCausalLM(config, source);
}

/** The steps of a golden case; `prefix` of its tensors, `key` of a parameter's final value. */
async function follow(
  golden: Golden,
  model: TrainableModel,
  options: StepOptions,
  prefix: string,
  key: string,
): Promise<void> {
  const settings = golden.inputs.adamw as AdamWSettings;
  const { input_ids, labels } = golden.inputs as { input_ids: number[][]; labels: number[][] };
  const target = trainableOf(model);
  const batch = prepareBatch({ input_ids, labels }, target.network.config.vocab_size);
  const step = createStep(target, {
    beta1: settings.betas[0],
    beta2: settings.betas[1],
    epsilon: settings.eps,
    weight_decay: settings.weight_decay,
    max_grad_norm: settings.max_grad_norm,
    ...options,
  });
  const [losses, norms]: [number[], number[]] = [[], []];
  for (let i = 0; i < settings.steps; i++) {
    const { loss, grad_norm: gradNorm } = await step.step([batch], settings.lr, 0);
    losses.push(loss);
    norms.push(gradNorm);
  }
  losses.push((await step.evaluate(batch)) / batch.items);
  expectClose(losses, golden.tensor(`${prefix}adamw.losses`).data, 1e-4, 'losses');
  expectClose(norms, golden.tensor(`${prefix}adamw.grad_norms`).data, 1e-4, 'norms');
  await step.sync();
  let [entries, far] = [0, 0];
  for (const [name, variable] of target.trainable()) {
    const got = variable.dataSync();
    const want = golden.tensor(`${prefix}final.${key}${name}`).data;
    expect(largestDifference(got, want).difference, name).to.be.at.most(2e-3);
    entries += got.length;
    got.forEach((value, i) => (far += Math.abs(value - want[i]!) > 1e-4 ? 1 : 0));
  }
  expect(far / entries).to.be.at.most(0.001);
  step.dispose();
}

const MODES: [string, StepOptions][] = [
  ['eager', { engine: 'eager' }],
  ['compiled', { engine: 'compiled' }],
  ['eager, blocks computed again', { engine: 'eager', gradient_checkpointing: true }],
  ['compiled, blocks computed again', { engine: 'compiled', gradient_checkpointing: true }],
];

describe('training step', () => {
  before(() => useBackend('tensorflow'));

  for (const [mode, options] of MODES) {
    for (const name of ['gradients/g1', 'gradients/g2']) {
      it(`${name}: AdamW steps (${mode})`, async () => {
        const golden = loadGolden(name);
        const model = await load(golden);
        tf.dispose(model.forward({ input_ids: [[1]], use_cache: false }).logits); // weights are uploaded at first use
        const before = tensorCount();
        await follow(golden, model, options, '', '');
        expect(tensorCount().tf).to.equal(before.tf);
        model.dispose();
      });
    }
    for (const adapter of foldersWith(loadGolden('lora'), 'adapter_config.json')) {
      it(`lora/${adapter}: AdamW steps (${mode})`, async () => {
        const golden = loadGolden('lora');
        const model = await load(golden);
        const peft = await load_peft_model(model, path.join(golden.dir, adapter));
        await follow(golden, peft, options, `${adapter}.`, 'base_model.model.');
        peft.dispose();
        model.dispose();
      });
    }
  }

  const SIZES = { ...LEARNER, num_hidden_layers: 2, chunk_size: 8, use_bias: false };
  const config = (): Mamba2Config => new Mamba2Config(SIZES);
  const rows = (lengths: number[]): number[][] =>
    lengths.map((n, i) => Array.from({ length: n }, (_, j) => ((i * 7 + j * 5 + (j * j) / 2 + 3) % 31) | 0));
  const single = (row: number[]) => prepareBatch({ input_ids: [row], labels: [row] }, 31);

  // what a step means does not depend on how its graph is run: XLA itself is tested above
  for (const engine of ['eager', 'compiled'] as const) {
    const xla = false;
    const run = async (
      model: TrainableModel,
      use: (step: TrainingStep) => Promise<void>,
      options: StepOptions = {},
    ): Promise<Map<string, Float32Array>> => {
      const target = trainableOf(model);
      const step = createStep(target, { engine, xla, ...options });
      await use(step);
      await step.sync();
      step.dispose();
      return new Map([...target.trainable()].map(([name, v]) => [name, v.dataSync<'float32'>().slice()]));
    };
    const copyOf = (model: Mamba2ForCausalLM): Mamba2ForCausalLM => {
      const copy = new Mamba2ForCausalLM(config());
      const from = model.weights.all();
      for (const [name, v] of Object.entries(copy.weights.all())) (v as tf.Variable).assign(from[name] as tf.Tensor);
      return copy;
    };

    it(`weights every position the same over accumulated batches of uneven lengths (${engine})`, async () => {
      const lengths = [9, 4, 9, 6];
      // the same weights each time: where a gradient is next to nothing, AdamW makes a step of its rounding
      const one = tinyModel(SIZES).model;
      const two = copyOf(one);
      const t = Math.max(...lengths);
      const padded = rows(lengths).map((row) => [...row, ...new Array<number>(t - row.length).fill(0)]);
      const attention_mask = rows(lengths).map((row) => [
        ...row.map(() => 1),
        ...new Array<number>(t - row.length).fill(0),
      ]);
      const whole = prepareBatch({ input_ids: padded, labels: padded, attention_mask }, 31);
      const parts = rows(lengths).map(single);
      expect(whole.items).to.equal(parts.reduce((sum, { items }) => sum + items, 0));
      const results: number[][] = [[], []];
      const a = await run(one, async (step) => {
        for (let i = 0; i < 3; i++) results[0]!.push((await step.step([whole], 1e-2, 0)).loss);
      });
      const b = await run(two, async (step) => {
        for (let i = 0; i < 3; i++) results[1]!.push((await step.step(parts, 1e-2, 0)).loss);
      });
      expectClose(results[1]!, results[0]!, 1e-5, 'losses');
      for (const [name, values] of a) expectClose(b.get(name)!, values, 1e-4, name);
      one.dispose();
      two.dispose();
    });

    it(`gives the same for documents alone, padded on either side, and packed into one row (${engine})`, async () => {
      const lengths = [5, 9, 1, 4];
      const docs = rows(lengths);
      const model = new Mamba2ForCausalLM(config());
      const t = Math.max(...lengths);
      const pad = (left: boolean, value: number, row: number[]): number[] => {
        const pads = new Array<number>(t - row.length).fill(value);
        return left ? [...pads, ...row] : [...row, ...pads];
      };
      const padded = (left: boolean) =>
        prepareBatch(
          {
            input_ids: docs.map((r) => pad(left, 0, r)),
            labels: docs.map((r) => pad(left, -100, r)),
            attention_mask: docs.map((r) =>
              pad(
                left,
                0,
                r.map(() => 1),
              ),
            ),
          },
          31,
        );
      const packed = prepareBatch(
        { input_ids: [docs.flat()], labels: [docs.flat()], segments: [docs.flatMap((r, i) => r.map(() => i))] },
        31,
      );
      const step = createStep(trainableOf(model), { engine, xla });
      let alone = 0;
      for (const doc of docs) if (doc.length > 1) alone += await step.evaluate(single(doc));
      for (const [what, batch] of [
        ['right', padded(false)],
        ['left', padded(true)],
        ['packed', packed],
      ] as const) {
        expect(batch.items, what).to.equal(5 + 9 + 1 + 4 - 4);
        expectClose([(await step.evaluate(batch)) / batch.items], [alone / batch.items], 1e-5, what);
      }
      step.dispose();
      // and one update each way
      const other = copyOf(model);
      const a = await run(
        model,
        async (s) => void (await s.step(docs.filter((d) => d.length > 1).map(single), 1e-2, 0)),
      );
      const b = await run(other, async (s) => void (await s.step([packed], 1e-2, 0)));
      for (const [name, values] of a) expectClose(b.get(name)!, values, 2e-4, name);
      model.dispose();
      other.dispose();
    });

    it(`refuses a batch beyond the memory there is, before anything is made for it (${engine})`, async () => {
      const model = new Mamba2ForCausalLM(config());
      const step = createStep(trainableOf(model), { engine, xla });
      const start = tensorCount();
      // what the collator made of it does not matter: it is as large as it says
      const batch = { ...single(rows([12])[0]!), batch: 2 ** 16, length: 2 ** 16 };
      for (const ask of [(): Promise<unknown> => step.step([batch], 1e-2, 0), () => step.evaluate(batch)]) {
        const error = await rejection(ask());
        expect(error).to.be.instanceOf(DeviceError);
        expect(error.message).to.match(
          /^Training: a batch of 65536 × 65536 ids would take at least [\d.]+ GiB of memory, and (the GPU has [\d.]+ GiB\.|[\d.]+ GiB are free).*per_device_train_batch_size/,
        );
        const { needed, free, total } = (error as DeviceError).data as { needed: number; free?: number; total: number };
        expect(needed).to.be.above(free ?? total);
      }
      expect(tensorCount()).to.deep.equal(start);
      step.dispose();
      model.dispose();
    });

    it(`changes nothing when the loss is not finite (${engine})`, async () => {
      const model = new Mamba2ForCausalLM(config());
      const norm = model.weights.all()['backbone.norm_f.weight'] as tf.Variable;
      tf.tidy(() => norm.assign(tf.mul(norm, Infinity)));
      const name = 'backbone.layers.0.mixer.in_proj.weight';
      const before = (model.weights.all()[name] as tf.Variable).dataSync().slice();
      const after = await run(model, async (step) => {
        const { loss } = await step.step([single(rows([8])[0]!)], 1e-2, 0);
        expect(Number.isFinite(loss)).to.equal(false);
        expect(step.steps).to.equal(0);
        expect((await step.moments(name)).first.every((v) => v === 0)).to.equal(true);
      });
      expect(after.get(name)).to.deep.equal(before);
      model.dispose();
    });

    it(`goes on bit for bit from restored moments (${engine})`, async () => {
      const batch = single(rows([12])[0]!);
      const model = new Mamba2ForCausalLM(config());
      const other = copyOf(model);
      const whole = await run(model, async (step) => {
        for (let i = 0; i < 6; i++) await step.step([batch], 1e-2, i);
      });
      const saved = new Map<string, { first: Float32Array; second: Float32Array }>();
      await run(other, async (step) => {
        for (let i = 0; i < 3; i++) await step.step([batch], 1e-2, i);
        for (const name of trainableOf(other).trainable().keys()) saved.set(name, await step.moments(name));
      });
      const resumed = await run(other, async (step) => {
        await step.restore(3, (name) => saved.get(name)!);
        for (let i = 3; i < 6; i++) await step.step([batch], 1e-2, i);
      });
      for (const [name, values] of whole) expect(resumed.get(name), name).to.deep.equal(values);
      model.dispose();
      other.dispose();
    });
  }

  it('trains an adapter with dropout the same eager and compiled', async () => {
    const batch = single(rows([12])[0]!);
    const base = new Mamba2ForCausalLM(config());
    const losses: number[][] = [];
    // what a step means does not depend on how its graph is run: XLA itself is tested above
    for (const engine of ['eager', 'compiled'] as const) {
      const peft: PeftModel = get_peft_model(
        base,
        { r: 2, lora_dropout: 0.3, target_modules: ['in_proj', 'out_proj', 'embeddings'] },
        { seed: 1 },
      );
      const step = createStep(trainableOf(peft), { engine, xla: false });
      const own: number[] = [];
      for (let i = 0; i < 5; i++) own.push((await step.step([batch], 2e-2, i)).loss);
      losses.push(own);
      step.dispose();
      peft.dispose();
    }
    expectClose(losses[1]!, losses[0]!, 1e-4);
    expect(losses[0]![4]).to.be.below(losses[0]![0]!);
    base.dispose();
  });

  it('learns in bfloat16 products what it learns in float32, nearly', async () => {
    const batch = single(rows([12])[0]!);
    const base = new Mamba2ForCausalLM(config());
    const last: number[] = [];
    for (const bf16 of [false, true]) {
      const peft = get_peft_model(base, { r: 4, target_modules: ['in_proj', 'out_proj'] }, { seed: 1 });
      const step = createStep(trainableOf(peft), { engine: 'compiled', bf16, xla: false });
      let loss = 0;
      for (let i = 0; i < 10; i++) loss = (await step.step([batch], 1e-2, i)).loss;
      last.push(loss);
      step.dispose();
      peft.dispose();
    }
    expect(last[1]).to.not.equal(last[0]);
    expect(Math.abs(last[1]! - last[0]!)).to.be.below(0.05 * last[0]!);
    base.dispose();
  });
});
