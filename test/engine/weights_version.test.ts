/** Weights that change, in whatever way, are what the next generate() works with; nobody needs to say so. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { DisposedError } from '../../src/base/errors.js';
import { Int8WeightOnlyConfig } from '../../src/quant/index.js';
import { get_peft_model } from '../../src/peft/index.js';
import { quantize } from '../../src/models/quantize.js';
import { useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { tinyModel } from '../support/tiny_model.js';

describe('weights that change', () => {
  before(() => useBackend('tensorflow'));

  const changes: Record<string, (model: ReturnType<typeof tinyModel>['model']) => unknown> = {
    'by setWeights()': ({ layersModel }) => {
      const other = tinyModel({}, 99).model;
      tf.tidy(() => layersModel.setWeights(other.layersModel.getWeights().map((w) => w.clone())));
      other.dispose();
    },
    'by assign()': ({ weights }) => {
      const head = weights.all()['lm_head.weight'] as tf.Variable;
      tf.tidy(() => head.assign(tf.neg(head)));
    },
    'by quantising': (model) => quantize(model, new Int8WeightOnlyConfig()),
    'by an adapter, and its training': (model) => {
      const peft = get_peft_model(model, { r: 2, target_modules: ['in_proj'], init_lora_weights: false });
      for (const factor of peft.trainable().values()) tf.tidy(() => factor.assign(tf.mul(factor, 3)));
    },
  };
  for (const [how, change] of Object.entries(changes)) {
    it(`${how} are what is generated with`, async () => {
      const { model } = tinyModel();
      const ids = [1, 2, 3];
      try {
        const engine = await model.engine();
        const state = await engine.createState(1);
        await engine.prefill(state, [Int32Array.from(ids)]);
        const { version } = model.weights;
        expect(await model.engine(), 'the same while nothing changes').to.equal(engine);
        await change(model);
        expect(model.weights.version).to.be.greaterThan(version);
        expect(await rejection(engine.logits(state))).to.be.instanceOf(DisposedError);
        expect(await rejection(state.toArrays())).to.be.instanceOf(DisposedError);
        const logits = tf.tidy(() => {
          const made = model.forward({ input_ids: [ids], logits_to_keep: 1, use_cache: false }).logits;
          return made.dataSync<'float32'>();
        });
        const next = await model.engine();
        expect(next).not.to.equal(engine);
        const fresh = await next.createState(1);
        await next.prefill(fresh, [Int32Array.from(ids)]);
        const [got] = await next.logits(fresh);
        for (const [i, value] of logits.entries()) expect(got![i]).to.be.closeTo(value, 1e-4);
      } finally {
        model.dispose();
      }
    });
  }

  it('are not those that are only brought into memory', async () => {
    const { model } = tinyModel();
    const { version } = model.weights;
    const { logits } = model.forward({ input_ids: [[1]], use_cache: false });
    logits.dispose();
    expect(model.weights.version).to.equal(version);
    model.dispose();
  });
});
