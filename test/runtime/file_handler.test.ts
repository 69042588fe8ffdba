/** file:// addresses of TensorFlow.js, as soon as the package is imported. */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { CheckpointError, SaveError } from '../../src/base/errors.js';
import { openCheckpoint } from '../../src/checkpoints.js';
import { exportLayersModel, Mamba2ForCausalLM } from '../../src/index.js';
import { Mamba2Mixer } from '../../src/layers.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { tinyModel } from '../support/tiny_model.js';

const ids = (): tf.Tensor => tf.tensor2d([[1, 2, 3]], [1, 3], 'int32');
const predicted = (model: tf.LayersModel): ArrayLike<number> =>
  tf.tidy(() => (model.predict(ids()) as tf.Tensor).dataSync());

async function failure(run: Promise<unknown>): Promise<Error> {
  return run.then(
    () => expect.fail('it passed'),
    (error: unknown) => error as Error,
  );
}

/** A model whose weights, of 4.9 MB, take two shards. */
function mixers(): tf.Sequential {
  const mixer = (name: string, inputShape?: number[]): Mamba2Mixer =>
    new Mamba2Mixer({ hiddenSize: 256, numHeads: 8, headDim: 64, nGroups: 1, stateSize: 16, name, inputShape });
  return tf.sequential({ layers: [mixer('first', [3, 256]), mixer('second'), mixer('third')] });
}

describe('file:// of TensorFlow.js', () => {
  let dir: string;
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'file-handler-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

  for (const backend of ['cpu', 'tensorflow'] as const)
    describe(`[${backend}]`, () => {
      before(() => useBackend(backend));

      it('loads what exportLayersModel() wrote, from model.json or its folder', async () => {
        const { model } = tinyModel({ tie_word_embeddings: true });
        const saved = path.join(dir, 'saved');
        const exported = path.join(dir, 'exported here');
        await model.save_pretrained(saved);
        const source = await openCheckpoint(saved);
        await exportLayersModel(source, exported);
        await source.close();
        const urls = [`file://${exported}/model.json`, `file://${exported}`, pathToFileURL(exported).href];
        for (const url of urls) {
          const loaded = await tf.loadLayersModel(url);
          expectClose(predicted(loaded), predicted(model.layersModel), 1e-5);
          loaded.dispose();
        }
        model.dispose();
      });

      it('keeps a model that tf saves, which from_pretrained() reads, too', async () => {
        const { model } = tinyModel({ tie_word_embeddings: true });
        const { modelArtifactsInfo } = await model.layersModel.save(`file://${dir}`);
        expect(modelArtifactsInfo.weightDataBytes).to.equal(model.num_parameters() * 4);
        const loaded = await tf.loadLayersModel(`file://${dir}/model.json`);
        expectClose(predicted(loaded), predicted(model.layersModel), 0);
        const again = await Mamba2ForCausalLM.from_pretrained(dir, { engine: 'eager' });
        expectClose(predicted(again.layersModel), predicted(model.layersModel), 0);
        for (const each of [loaded, again, model]) each.dispose();
      });

      it('says which file is missing, cut or damaged', async () => {
        const { model } = tinyModel();
        const missing = await failure(tf.loadLayersModel(`file://${dir}/none/model.json`));
        expect(missing).to.be.instanceOf(CheckpointError);
        expect((missing as CheckpointError).data.file).to.equal(`${dir}/none/model.json`);

        await model.layersModel.save(`file://${dir}`);
        model.dispose();
        const [shard] = fs.readdirSync(dir).filter((name) => name.endsWith('.bin'));
        fs.truncateSync(path.join(dir, shard!), 100);
        const cut = await failure(tf.loadLayersModel(`file://${dir}`));
        expect(cut).to.be.instanceOf(CheckpointError);
        expect(cut.message).to.match(/model\.json: its shards have 100 bytes; its weights take \d+/);
        fs.rmSync(path.join(dir, shard!));
        const gone = await failure(tf.loadLayersModel(`file://${dir}`));
        expect(gone).to.be.instanceOf(CheckpointError);
        expect(gone.message).to.include(shard!);

        for (const text of ['{', 'null', '{"modelTopology": {}, "weightsManifest": [{"paths": "x"}]}']) {
          fs.writeFileSync(path.join(dir, 'model.json'), text);
          const error = await failure(tf.loadLayersModel(`file://${dir}/model.json`));
          expect(error, text).to.be.instanceOf(CheckpointError);
          expect(error.message).to.include('model.json');
        }
      });

      it('refuses a shard in another folder, and to save over a file', async () => {
        const entry = { name: 'w', shape: [1], dtype: 'float32' };
        const manifest = [{ paths: ['../w.bin'], weights: [entry] }];
        fs.writeFileSync(
          path.join(dir, 'model.json'),
          JSON.stringify({ modelTopology: {}, weightsManifest: manifest }),
        );
        const error = await failure(tf.loadLayersModel(`file://${dir}`));
        expect(error).to.be.instanceOf(CheckpointError);
        expect(error.message).to.include('../w.bin');
        const { model } = tinyModel();
        expect(await failure(model.layersModel.save(`file://${dir}/model.json`))).to.be.instanceOf(SaveError);
        model.dispose();
      });
    });

  it('writes weights in shards of 4 MB, and leaves none of an earlier save', async () => {
    await useBackend('cpu');
    const model = mixers();
    await model.save(`file://${dir}`);
    const shards = fs.readdirSync(dir).filter((name) => name.endsWith('.bin'));
    expect(shards).to.deep.equal(['group1-shard1of2.bin', 'group1-shard2of2.bin']);
    const loaded = await tf.loadLayersModel(`file://${dir}`);
    for (const [i, weight] of loaded.getWeights().entries()) expectClose(weight, model.getWeights()[i]!.dataSync(), 0);
    const { model: small } = tinyModel();
    await small.layersModel.save(`file://${dir}`);
    expect(fs.readdirSync(dir).sort()).to.deep.equal(['group1-shard1of1.bin', 'model.json']);
    for (const each of [model, loaded, small]) each.dispose();
  });

  it('leaves an address to another handler that takes it', () => {
    // in a process of its own, since a handler stays registered
    const code = `
      import * as tf from '@tensorflow/tfjs';
      import './src/layers.js';
      const before = tf.io.getLoadHandlers('file://x').length + tf.io.getSaveHandlers('file://x').length;
      const theirs = (url) => (String(url).startsWith('file://') ? { theirs: true } : null);
      tf.io.registerLoadRouter(theirs);
      tf.io.registerSaveRouter(theirs);
      console.log(JSON.stringify([before, tf.io.getLoadHandlers('file://x'), tf.io.getSaveHandlers('file://x')]));`;
    const out = execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
      encoding: 'utf8',
    });
    expect(JSON.parse(out.trim().split('\n').at(-1)!)).to.deep.equal([2, [{ theirs: true }], [{ theirs: true }]]);
  });
});
