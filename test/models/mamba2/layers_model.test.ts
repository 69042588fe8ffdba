/** The model as a genuine tf.LayersModel: predict, summary, weights, saving and loading; and nothing left in memory. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import '../../../src/layers/index.js';
import { Mamba2Cache } from '../../../src/models/mamba2/cache.js';
import { Mamba2Model } from '../../../src/models/mamba2/modeling.js';
import type { Mamba2ConfigFields } from '../../../src/models/mamba2/config.js';
import { AdamW } from '../../../src/training/adamw_optimizer.js';
import { onBackends, tensorCount, useBackend } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import * as oracle from '../../support/oracle.js';
import { lcg } from '../../support/random.js';
import { randomIds, tinyModel, type TinyModel } from '../../support/tiny_model.js';

async function artifactsOf(model: tf.LayersModel): Promise<tf.io.ModelArtifacts> {
  let kept: tf.io.ModelArtifacts | undefined;
  await model.save(
    tf.io.withSaveHandler(async (artifacts) => {
      // through JSON, as every storage does
      kept = JSON.parse(JSON.stringify({ ...artifacts, weightData: null })) as tf.io.ModelArtifacts;
      kept.weightData = artifacts.weightData;
      return { modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: 'JSON' } };
    }),
  );
  return kept!;
}

const KINDS: [string, Partial<Mamba2ConfigFields>][] = [
  ['untied', {}],
  [
    'tied, norm over all channels, a limit',
    { tie_word_embeddings: true, norm_groups: 'full', time_step_limit: [0.2, 0.9] },
  ],
];

for (const [title, overrides] of KINDS) {
  onBackends(['tensorflow', 'wasm', 'cpu'], `LayersModel, ${title}`, () => {
    let tiny: TinyModel;
    let start: ReturnType<typeof tensorCount>;
    const ids = randomIds(lcg(51), 2, 7, 11);
    beforeEach(() => {
      start = tensorCount();
      tiny = tinyModel(overrides);
    });
    afterEach(() => {
      tiny.model.dispose();
      expect(tensorCount(), 'tensors left after dispose').to.deep.equal(start);
    });
    const predict = (model: tf.LayersModel, rows = ids): Float32Array =>
      tf.tidy(() => (model.predict(tf.tensor2d(rows, undefined, 'int32')) as tf.Tensor).dataSync<'float32'>().slice());
    const wanted = (): Float64Array => oracle.stack(ids.map((row) => tiny.oracle(row).logits)).data;

    it('predicts logits and hidden states', () => {
      expectClose(predict(tiny.model.layersModel), wanted(), 1e-4, 'logits');
      const hidden = oracle.stack(ids.map((row) => tiny.oracle(row).hidden)).data;
      expectClose(predict(tiny.model.backbone.layersModel), hidden, 1e-4, 'hidden states');
      const { logits, cache } = tiny.model.forward({ input_ids: ids });
      expectClose(logits, predict(tiny.model.layersModel), 1e-6, 'forward');
      logits.dispose();
      cache!.dispose();
    });

    it('declares [b, t] to [b, t, v] for any b and t', () => {
      const { layersModel } = tiny.model;
      expect(layersModel.inputs[0]!.shape).to.deep.equal([null, null]);
      expect(layersModel.outputs[0]!.shape).to.deep.equal([null, null, 11]);
      expect(tiny.model.backbone.layersModel.outputs[0]!.shape).to.deep.equal([null, null, 6]);
      expect(predict(layersModel, [[1]]).length).to.equal(11);
    });

    it('prints a summary that counts every parameter', () => {
      const lines: string[] = [];
      tiny.model.layersModel.summary(undefined, undefined, (line: string) => lines.push(line));
      const text = lines.join('\n');
      expect(text).to.contain('layers.0 (Mamba2Block)').and.to.contain('norm_f (Mamba2RMSNorm)');
      expect(text).to.contain(`Total params: ${tiny.model.num_parameters()}`);
    });

    it('gets and sets weights', () => {
      const other = tinyModel(overrides, 99);
      tf.tidy(() => other.model.layersModel.setWeights(tiny.model.layersModel.getWeights().map((w) => w.clone())));
      expectClose(predict(other.model.layersModel), wanted(), 1e-4);
      // the variables are the same ones that forward() reads
      const { logits } = other.model.forward({ input_ids: ids, use_cache: false });
      expectClose(logits, wanted(), 1e-4);
      logits.dispose();
      other.model.dispose();
    });

    for (const part of ['causal', 'backbone'] as const) {
      it(`the ${part} model comes back from a save`, async () => {
        const saved = part === 'causal' ? tiny.model.layersModel : tiny.model.backbone.layersModel;
        const loaded = await tf.loadLayersModel(tf.io.fromMemory(await artifactsOf(saved)));
        expectClose(predict(loaded), predict(saved), 0);
        expect(loaded.weights.length).to.equal(saved.weights.length);
        expect(loaded.layers.map((layer) => layer.getConfig())).to.deep.equal(
          saved.layers.map((layer) => layer.getConfig()),
        );
        // and a second time, so that nothing is lost on the way
        const again = await tf.loadLayersModel(tf.io.fromMemory(await artifactsOf(loaded)));
        expectClose(predict(again), predict(saved), 0);
        again.dispose();
        loaded.dispose();
      });
    }

    it('two models of the same names live side by side', async () => {
      const other = tinyModel(overrides, 99);
      const theirs = predict(other.model.layersModel);
      expectClose(predict(tiny.model.layersModel), wanted(), 1e-4);
      expect(theirs).to.not.deep.equal(predict(tiny.model.layersModel));
      const loaded = await tf.loadLayersModel(tf.io.fromMemory(await artifactsOf(other.model.layersModel)));
      other.model.dispose();
      expectClose(predict(loaded), theirs, 0);
      loaded.dispose();
    });
  });
}

describe('LayersModel on disk', () => {
  before(() => useBackend('tensorflow'));

  it('comes back from file://', async () => {
    const tiny = tinyModel({ tie_word_embeddings: true });
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'layers-model-'));
    await tiny.model.layersModel.save(`file://${dir}`);
    const loaded = await tf.loadLayersModel(`file://${dir}/model.json`);
    tf.tidy(() => {
      const ids = tf.tensor2d([[1, 2, 3]], [1, 3], 'int32');
      expectClose(loaded.predict(ids) as tf.Tensor, tiny.oracle([1, 2, 3]).logits.data, 1e-4);
    });
    loaded.dispose();
    tiny.model.dispose();
    fs.rmSync(dir, { recursive: true });
  });
});

describe('Mamba2Model alone', () => {
  before(() => useBackend('cpu'));

  it('has weights of its own, and gives them back', () => {
    const start = tf.memory().numTensors;
    const { model: causal } = tinyModel();
    const model = new Mamba2Model(causal.config);
    expect(model.get_input_embeddings().shape).to.deep.equal([11, 6]);
    const { last_hidden_state, cache, hidden_states } = model.forward({
      input_ids: [[1, 2]],
      output_hidden_states: true,
    });
    expect(last_hidden_state.shape).to.deep.equal([1, 2, 6]);
    expect(hidden_states!.map(({ shape }) => shape)).to.deep.equal(Array(3).fill([1, 2, 6]));
    tf.dispose([last_hidden_state, ...hidden_states!]);
    cache!.dispose();
    model.dispose();
    causal.dispose();
    expect(tf.memory().numTensors).to.equal(start);
  });
});

onBackends(['tensorflow', 'wasm', 'cpu'], 'memory', (backend) => {
  it('does not grow over fifty decoding steps', () => {
    const { model } = tinyModel();
    const cache = Mamba2Cache.zeros(model.config, 2);
    model
      .forward({
        input_ids: [
          [1, 2, 3],
          [4, 5, 6],
        ],
        cache,
      })
      .logits.dispose();
    const start = tensorCount();
    const bytes = tf.memory().numBytes;
    for (let i = 0; i < 50; i++) {
      model
        .forward({ input_ids: [[i % 11], [(i * 3) % 11]], attention_mask: i % 7 ? undefined : [[1], [0]], cache })
        .logits.dispose();
      expect(tensorCount(), `step ${i}`).to.deep.equal(start);
    }
    expect(tf.memory().numBytes).to.equal(bytes);
    cache.dispose();
    model.dispose();
  });

  it('does not grow over fifty steps of the engine', async () => {
    const { model } = tinyModel();
    const { EagerEngine } = await import('../../../src/engine/eager_engine.js');
    const engine = new EagerEngine(model.weights);
    const state = await engine.createState(2);
    await engine.prefill(state, [Int32Array.of(1, 2, 3), Int32Array.of(4)]);
    const start = tensorCount();
    for (let i = 0; i < 50; i++) {
      await engine.step(state, Int32Array.of(i % 11, (i * 3) % 11));
      expect(tensorCount(), `step ${i}`).to.deep.equal(start);
    }
    state.dispose();
    model.dispose();
  });

  if (backend !== 'wasm') {
    it('does not grow over five training steps', () => {
      const { model } = tinyModel();
      const optimizer = new AdamW({ learningRate: 1e-3 });
      const input_ids = randomIds(lcg(61), 2, 8, 11);
      const variables = Object.values(model.weights.all()) as tf.Variable[];
      const losses: number[] = [];
      let after: ReturnType<typeof tensorCount> | null = null;
      for (let i = 0; i < 6; i++) {
        const loss = optimizer.minimize(
          () => model.forward({ input_ids, labels: input_ids, use_cache: false }).loss!,
          true,
          variables,
        )!;
        losses.push(loss.dataSync()[0]!);
        loss.dispose();
        if (after) expect(tensorCount(), `step ${i}`).to.deep.equal(after);
        after = tensorCount(); // the first step makes the moments
      }
      expect(losses[5]).to.be.lessThan(losses[0]!);
      optimizer.dispose();
      model.dispose();
    });
  }
});
