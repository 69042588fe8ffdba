import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as os from 'node:os';
import * as path from 'node:path';
import type { AddressInfo } from 'node:net';
import {
  convertCheckpoint,
  inspectCheckpoint,
  openCheckpoint,
  validateCheckpoint,
  verifyConversion,
} from '../../../src/models/checkpoints.js';
import { ArgumentError, CheckpointError } from '../../../src/base/errors.js';
import { Mamba2Config, Mamba2Network, NetworkWeights } from '../../../src/models/mamba2/index.js';
import { exportLayersModel, layersModelTopology } from '../../../src/models/mamba2/tfjs_export.js';
import { TINY_CONFIG } from '../../support/checkpoint.js';
import { rejection } from '../../support/errors.js';
import { fixture, goldenDir, loadGolden } from '../../support/goldens.js';

const formats = (name: string): string => goldenDir(`formats/${name}`);
const saveResult = { modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: 'JSON' as const } };

/** Saves a LayersModel into a folder, as a download from a browser would. */
function intoFolder(dir: string, metadata: boolean): tf.io.IOHandler {
  return tf.io.withSaveHandler((artifacts) => {
    const { weightData, weightSpecs, modelTopology, userDefinedMetadata } = artifacts;
    fs.mkdirSync(dir, { recursive: true });
    fs.writeFileSync(path.join(dir, 'weights.bin'), new Uint8Array(tf.io.CompositeArrayBuffer.join(weightData)));
    const weightsManifest = [{ paths: ['weights.bin'], weights: weightSpecs }];
    const model = { modelTopology, weightsManifest, ...(metadata ? { userDefinedMetadata } : {}) };
    fs.writeFileSync(path.join(dir, 'model.json'), JSON.stringify(model));
    return Promise.resolve(saveResult);
  });
}

describe('checkpoints as TensorFlow.js models', () => {
  let dir = '';
  let server: http.Server;
  before(() => tf.setBackend('cpu'));
  beforeEach((done) => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-'));
    server = http.createServer((request, response) => {
      const file = path.join(dir, decodeURIComponent(request.url ?? ''));
      if (fs.existsSync(file)) response.end(fs.readFileSync(file));
      else response.writeHead(404).end();
    });
    server.listen(0, '127.0.0.1', done);
  });
  afterEach((done) => {
    fs.rmSync(dir, { recursive: true, force: true });
    server.close(done);
    server.closeAllConnections();
  });
  const load = (name: string): Promise<tf.LayersModel> =>
    tf.loadLayersModel(`http://127.0.0.1:${(server.address() as AddressInfo).port}/${name}/model.json`);

  for (const tie of [true, false])
    it(`have the topology that save() writes (${tie ? 'tied' : 'untied'} head)`, async () => {
      const config = new Mamba2Config({ ...TINY_CONFIG, tie_word_embeddings: tie, time_step_limit: [0.01, 2] });
      const { backbone, causal } = new NetworkWeights(new Mamba2Network(config), null).layersModels();
      let saved: unknown;
      await causal.save(
        tf.io.withSaveHandler((artifacts) => {
          saved = artifacts.modelTopology;
          return Promise.resolve(saveResult);
        }),
      );
      expect(layersModelTopology(config)).to.deep.equal(JSON.parse(JSON.stringify(saved)));
      causal.dispose();
      if (backbone.layers.some((layer) => !causal.layers.includes(layer))) backbone.dispose();
    });

  for (const name of ['single', 'sharded', 'bf16', 'mixed-dtype', 'state-spaces', 'codestral-native'])
    it(`go there and back bit for bit: ${name}`, async () => {
      const source = await openCheckpoint(formats(name));
      await exportLayersModel(source, path.join(dir, 'tfjs'), { max_shard_size: '10kB' });
      const model = await openCheckpoint(path.join(dir, 'tfjs'));
      expect((await verifyConversion(source, model)).differences).to.deep.equal([]);
      await convertCheckpoint(model, path.join(dir, 'back'));
      await convertCheckpoint(source, path.join(dir, 'direct'));
      const read = (folder: string, file: string): Buffer => fs.readFileSync(path.join(dir, folder, file));
      for (const file of ['model.safetensors', 'config.json'])
        expect(read('back', file).equals(read('direct', file)), file).to.equal(true);
      await source.close();
      await model.close();
    });

  for (const [name, expected] of [
    ['single', 'fp32.logits'],
    ['bf16', 'bf16.logits'],
    ['mixed-dtype', 'mixed-dtype.logits'],
    ['state-spaces', 'state-spaces.logits'],
    ['codestral-native', 'codestral-native.logits'],
  ] as const)
    it(`load over http and give the golden logits: ${name}`, async () => {
      const golden = loadGolden('formats');
      const source = await openCheckpoint(formats(name));
      await exportLayersModel(source, path.join(dir, name), { max_shard_size: '7kB' });
      await source.close();
      const model = await load(name);
      const key = name === 'codestral-native' ? 'codestral_native_input_ids' : 'input_ids';
      const ids = tf.tensor2d(golden.inputs[key] as number[][], undefined, 'int32');
      const logits = model.predict(ids) as tf.Tensor;
      const want = golden.tensor(expected);
      expect(logits.shape).to.deep.equal(want.shape);
      const worst = (logits.dataSync() as Float32Array).reduce(
        (max, x, i) => Math.max(max, Math.abs(x - want.data[i]!)),
        0,
      );
      expect(worst).to.be.lessThan(1e-4);
      tf.dispose([ids, logits]);
      model.dispose();
    });

  for (const metadata of [true, false])
    it(`read back after TensorFlow.js saved them itself (${metadata ? 'with' : 'without'} metadata)`, async () => {
      const source = await openCheckpoint(formats('bf16'));
      await exportLayersModel(source, path.join(dir, 'tfjs'));
      const model = await load('tfjs');
      await model.save(intoFolder(path.join(dir, 'again'), metadata));
      model.dispose();
      const again = await openCheckpoint(path.join(dir, 'again'));
      await validateCheckpoint(again);
      for (const key of ['hidden_size', 'state_size', 'num_heads', 'n_groups', 'vocab_size', 'time_step_limit'])
        expect(again.config[key], key).to.deep.equal(source.config[key]);
      // values are those of the checkpoint; that they were bfloat16 once is not known any more
      for (const [key, info] of again.tensors) {
        expect(info.dtype).to.equal('F32');
        expect(await again.readFloat32(key), key).to.deep.equal(await source.readFloat32(key));
      }
      await again.close();
      await source.close();
    });

  it('are not written beside another model, which would be read instead; an earlier export is replaced', async () => {
    const source = await openCheckpoint(fixture('goldens/formats/single'));
    const other = await openCheckpoint(fixture('goldens/g1-forward'));
    const contents = (folder: string): [string, string][] =>
      fs.readdirSync(folder).map((name) => [name, fs.readFileSync(path.join(folder, name), 'base64')]);
    const file = (name: string): string => path.join(dir, name);
    await convertCheckpoint(other, file('one'));
    await convertCheckpoint(other, file('shards'), { max_shard_size: '40kB' });
    fs.mkdirSync(file('torch'));
    fs.writeFileSync(file('torch/pytorch_model.bin'), 'weights');
    for (const [name, weights] of [
      ['one', 'model.safetensors'],
      ['shards', 'model.safetensors.index.json'],
      ['torch', 'pytorch_model.bin'],
    ] as const) {
      const before = contents(file(name));
      const error = await rejection(exportLayersModel(source, file(name)));
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message)
        .to.include(`(${weights})`)
        .and.to.match(/Name another folder/);
      expect(contents(file(name)), name).to.deep.equal(before);
    }
    await exportLayersModel(other, file('tfjs'));
    await exportLayersModel(source, file('tfjs'));
    const again = await openCheckpoint(file('tfjs'));
    expect((await verifyConversion(source, again)).differences).to.deep.equal([]);
    for (const x of [source, other, again]) await x.close();
  });

  it('are refused when shards and manifest disagree, naming file and tensor', async () => {
    const source = await openCheckpoint(formats('single'));
    const out = path.join(dir, 'tfjs');
    await exportLayersModel(source, out);
    await source.close();
    const file = path.join(out, 'model.json');
    interface Model {
      weightsManifest: [{ paths: string[]; weights: { name: string; shape: number[]; dtype: string }[] }];
    }
    const original = fs.readFileSync(file, 'utf8');
    const cases: [(model: Model) => unknown, RegExp][] = [
      [({ weightsManifest: [group] }) => (group.weights[3]!.shape = [2 ** 40, 2 ** 40]), /reaches past the end/],
      [({ weightsManifest: [group] }) => (group.weights[0]!.shape[0]! += 1), /reaches past the end|shards have/],
      [({ weightsManifest: [group] }) => group.weights.pop(), /shards have/],
      [({ weightsManifest: [group] }) => (group.paths = ['../tfjs/x.bin']), /file name in the same folder/],
      [({ weightsManifest: [group] }) => (group.paths = ['gone.bin']), /gone\.bin/],
      [({ weightsManifest: [group] }) => (group.weights[1]!.dtype = 'complex64'), /complex64/],
      [({ weightsManifest: [group] }) => (group.weights[1]!.name = group.weights[0]!.name), /twice/],
      [(model) => (model.weightsManifest = 3 as never), /no weightsManifest/],
    ];
    for (const [change, message] of cases) {
      const model = JSON.parse(original) as Model;
      change(model);
      fs.writeFileSync(file, JSON.stringify(model));
      const error = await openCheckpoint(out).catch((e: unknown) => e);
      expect(error, String(message)).to.be.instanceOf(CheckpointError);
      expect((error as Error).message)
        .to.match(message)
        .and.include(out);
      expect((await inspectCheckpoint(out)).problems).to.not.deep.equal([]);
    }
  });
});
