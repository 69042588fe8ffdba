/** Quantised models: golden logits, saving and loading, import of torchao's files, and what is refused. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { encodeFloat32 } from '../../../src/base/stored_dtypes.js';
import { saveCheckpoint, type OutTensor } from '../../../src/checkpoints/index.js';
import type { EagerEngine } from '../../../src/engine/eager_engine.js';
import { openCheckpoint } from '../../../src/models/checkpoints.js';
import { ArgumentError, CheckpointError, ConfigError } from '../../../src/base/errors.js';
import { Mamba2ForCausalLM, quantizationOf, quantize, quantizeCheckpoint } from '../../../src/models/mamba2/index.js';
import type { PretrainedOptions } from '../../../src/models/mamba2/pretrained_options.js';
import {
  Int4WeightOnlyConfig,
  Int8WeightOnlyConfig,
  QuantizedLinear,
  quantizationToDict,
  TorchAoConfig,
} from '../../../src/quant/index.js';
import { onBackends, useBackend } from '../../support/backends.js';
import { expectClose, expectTensor } from '../../support/compare.js';
import { rejection } from '../../support/errors.js';
import { fixture, loadGolden, readTensors, vectorOf, type Golden } from '../../support/goldens.js';

/** Of logits in float32 against float64; the goldens' README states it. */
const TOLERANCE = 1e-4;
const cases = ['int4', 'int4-skip'];
const group_size = loadGolden('int4').inputs.group_size as number;
const grouped = new Int4WeightOnlyConfig({ group_size });
const groupedAs = (golden: Golden): Int4WeightOnlyConfig =>
  new Int4WeightOnlyConfig({ group_size: golden.inputs.group_size as number });

const folders: string[] = [];
const models: { dispose(): void }[] = [];
function folder(): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'mamba2-quantized-'));
  folders.push(dir);
  return dir;
}
function cleanUp(): void {
  models.splice(0).forEach((model) => model.dispose());
  folders.splice(0).forEach((dir) => fs.rmSync(dir, { recursive: true }));
}
async function load(dir: string, options: PretrainedOptions = {}): Promise<Mamba2ForCausalLM> {
  const model = await Mamba2ForCausalLM.from_pretrained(dir, options);
  models.push(model);
  return model;
}
function logits(model: Mamba2ForCausalLM, golden: Golden): tf.Tensor {
  return model.forward({ input_ids: golden.inputs.input_ids as number[][], use_cache: false }).logits;
}
function expectLogits(model: Mamba2ForCausalLM, golden: Golden, name: string): void {
  const got = logits(model, golden);
  expectTensor(got, golden.tensor(name), TOLERANCE, name);
  got.dispose();
}

/** The golden's weights in bfloat16 with torchao's packed tensors in place of the projections, as transformers saves them. */
async function torchaoFolder(golden: Golden): Promise<string> {
  const packed = readTensors(path.join(golden.dir, 'quantised-bf16.safetensors'));
  const quantised = golden.inputs.quantised as string[];
  const tensors: OutTensor[] = [];
  for (const [name, { shape, data }] of readTensors(path.join(golden.dir, 'model.safetensors'))) {
    if (quantised.includes(name)) continue;
    tensors.push({ name, shape, dtype: 'BF16', data: () => encodeFloat32(data as Float32Array, 'BF16') });
  }
  for (const [name, { shape, data }] of packed) {
    if (/_weight_qdata$/.test(name))
      tensors.push({ name, shape, dtype: 'I8', data: () => new Uint8Array(Int8Array.from(data).buffer) });
    else if (/_weight_(scale|zero_point)$/.test(name))
      tensors.push({ name, shape, dtype: 'BF16', data: () => encodeFloat32(data as Float32Array, 'BF16') });
  }
  const dir = folder();
  const record = quantizationToDict(groupedAs(golden));
  delete record.tfjs_mamba2;
  await saveCheckpoint(dir, { ...golden.config, dtype: 'bfloat16', quantization_config: record }, tensors);
  return dir;
}

onBackends(['tensorflow', 'wasm', 'cpu'], 'golden quantised models', () => {
  afterEach(cleanUp);
  for (const name of cases) {
    it(`${name}: quantised while loading`, async () => {
      const golden = loadGolden(name);
      const before = tf.memory().numTensors;
      const model = await load(golden.dir, { quantization_config: groupedAs(golden) });
      expectLogits(model, golden, 'fp32.logits');
      const all = model.weights.all();
      const stored = Object.keys(all).filter((key) => all[key] instanceof QuantizedLinear);
      expect(stored.sort()).to.deep.equal([...(golden.inputs.quantised as string[])].sort());
      for (const key of stored) expect(model.weights.base(key), key).to.equal(undefined);
      cleanUp();
      expect(tf.memory().numTensors).to.equal(before);
    });

    it(`${name}: torchao's plain packing`, async () => {
      const golden = loadGolden(name);
      expectLogits(await load(await torchaoFolder(golden)), golden, 'bf16.logits');
    });
  }
});

onBackends(['wasm'], 'golden int4 step by step, by the kernels', () => {
  for (const activation_quantization of [true, false])
    it(`activation_quantization ${activation_quantization}`, async () => {
      const golden = loadGolden('int4');
      const ids = golden.inputs['input_ids'] as number[][];
      const before = tf.memory();
      const model = await Mamba2ForCausalLM.from_pretrained(golden.dir, {
        quantization_config: new Int4WeightOnlyConfig({ group_size, activation_quantization }),
      });
      const engine = await model.engine();
      const want = golden.tensor('fp32.logits');
      for (const [i, row] of ids.entries()) {
        const state = await engine.createState(1);
        await engine.prefill(state, [Int32Array.from(row.slice(0, 1))]);
        for (let t = 1; t < row.length; t++) {
          await engine.step(state, Int32Array.of(row[t]!));
          const [got] = await engine.logits(state);
          expectClose(got!, vectorOf(want, i, t), TOLERANCE, `row ${i}, token ${t}`);
        }
        state.dispose();
      }
      (engine as EagerEngine).dispose(); // places of prepared steps
      // of each quantised matrix codes, scales and zeros, of all else float32
      const float32 = model.weights.network
        .weightSpecs()
        .filter(({ name }) => !quantizationOf(model.weights)!.matrices.has(name))
        .reduce((sum, { shape }) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0);
      const packed = quantizationOf(model.weights)!.report.weights.reduce((sum, { bytes }) => sum + bytes, 0);
      expect(tf.memory().numBytes - before.numBytes).to.equal(float32 + packed);
      model.dispose();
      expect(tf.memory().numTensors).to.equal(before.numTensors);
    });
});

describe('quantised models', function () {
  this.timeout(120_000);
  before(() => useBackend('tensorflow'));
  afterEach(cleanUp);
  const golden = loadGolden('int4');

  it('quantize() before and after the model has run gives the same', async () => {
    const model = await load(golden.dir);
    const report = await quantize(model, new TorchAoConfig('int4_weight_only', { group_size }));
    expect(report.weights.map(({ name }) => name)).to.deep.equal(golden.inputs.quantised);
    const original = readTensors(path.join(golden.dir, 'model.safetensors'));
    for (const { name, relative_error, bits } of report.weights) {
      const w = original.get(name)!.data;
      const dequantised = golden.tensor(`fp32.dequantised.${name}`).data;
      const norm = (of: (i: number) => number): number =>
        Math.sqrt(Array.from(w, (_, i) => of(i) ** 2).reduce((sum, square) => sum + square, 0));
      const want = norm((i) => dequantised[i]! - w[i]!) / norm((i) => w[i]!);
      // both are of float32 weights, whose last bits are far below the error of int4
      expect(relative_error, name).to.be.closeTo(want, 1e-5 * want);
      expect(bits).to.equal(4 + 64 / group_size);
    }
    expectLogits(model, golden, 'fp32.logits');
    const used = await load(golden.dir);
    expectLogits(used, golden, 'float.logits');
    await quantize(used, grouped);
    expectLogits(used, golden, 'fp32.logits');
  });

  for (const [what, config] of [
    ['int4', grouped],
    ['int4 with embedding and head', new Int4WeightOnlyConfig({ group_size, include_input_output_embeddings: true })],
    [
      'int4 in bfloat16 scales',
      new Int4WeightOnlyConfig({ group_size: 2 * group_size, scale_dtype: 'bfloat16', rounding: 'search' }),
    ],
    ['int8', new Int8WeightOnlyConfig({ include_input_output_embeddings: true })],
  ] as const) {
    const size = fs.statSync(path.join(golden.dir, 'model.safetensors')).size;
    for (const shards of [undefined, Math.floor(size / 6)]) {
      it(`${what}: save and load${shards ? ', in shards' : ''}; the folder alone quantises to the same bytes`, async () => {
        const model = await load(golden.dir, { quantization_config: config });
        const [dir, other] = [folder(), folder()];
        await model.save_pretrained(dir, { max_shard_size: shards });
        const again = await load(dir);
        expect(quantizationOf(again.weights)!.config).to.deep.equal(config);
        const [a, b] = [logits(model, golden), logits(again, golden)];
        expectClose(a, b, 0, 'logits');
        tf.dispose([a, b]);
        const report = await quantizeCheckpoint(golden.dir, other, config, {
          max_shard_size: shards,
          code_bytes: 3000,
        });
        const files = fs.readdirSync(dir).filter((file) => file.endsWith('.safetensors'));
        expect(files.length).to.be.greaterThan(shards ? 1 : 0);
        const [one, two] = [await openCheckpoint(dir), await openCheckpoint(other)];
        expect([...two.tensors.keys()].sort()).to.deep.equal([...one.tensors.keys()].sort());
        for (const { name, dtype } of one.tensors.values()) {
          expect(two.tensors.get(name)!.dtype, name).to.equal(dtype);
          expect(Buffer.from(await two.readBytes(name)).equals(await one.readBytes(name)), name).to.equal(true);
        }
        await Promise.all([one.close(), two.close()]);
        expect(report.weights).to.deep.equal(quantizationOf(model.weights)!.report.weights);
      });
    }
  }

  it('takes at most 4.6 bits a weight on disk in groups of 128', async () => {
    const dir = folder();
    const config = new Int4WeightOnlyConfig({ include_input_output_embeddings: true });
    const { weights } = await quantizeCheckpoint('models/tiny-books-mamba2', dir, config);
    expect(weights).to.have.length(17);
    for (const { bits, name } of weights) expect(bits, name).to.be.at.most(4.6);
    const size = fs.statSync(path.join(dir, 'model.safetensors')).size;
    const elements = weights.reduce((sum, { shape }) => sum + shape[0]! * shape[1]!, 0);
    // the rest of the model is small
    expect((size * 8) / elements).to.be.below(5);
    expect(fs.existsSync(path.join(dir, 'tokenizer.json'))).to.equal(true);
  });

  it('the compiled engine with exact weights has the golden logits, in prefill and step by step', async () => {
    const ids = golden.inputs.input_ids as number[][];
    const exact = new Int4WeightOnlyConfig({ group_size, activation_quantization: false });
    const model = await load(golden.dir, {
      quantization_config: exact,
      engine: 'compiled',
      batches: [ids.length],
      segments: [16],
    });
    const engine = await model.engine();
    const want = golden.tensor('fp32.logits');
    const state = await engine.createState(ids.length);
    const prompt = Math.ceil(ids[0]!.length / 2);
    await engine.prefill(
      state,
      ids.map((row) => Int32Array.from(row.slice(0, prompt))),
    );
    for (let t = prompt; t < ids[0]!.length; t++) {
      const got = await engine.logits(state);
      got.forEach((row, i) => expectClose(row, vectorOf(want, i, t - 1), TOLERANCE, `row ${i}, after ${t} tokens`));
      await engine.step(
        state,
        Int32Array.from(ids, (row) => row[t]!),
      );
    }
    state.dispose();
  });

  it('refuses to quantise a quantised model', async () => {
    const model = await load(golden.dir, { quantization_config: grouped });
    const again = await rejection(quantize(model, grouped));
    expect(again).to.be.instanceOf(ConfigError);
    expect(again.message).to.match(/quantised already/);
    const dir = folder();
    await model.save_pretrained(dir);
    for (const error of [
      await rejection(load(dir, { quantization_config: new Int8WeightOnlyConfig() })),
      await rejection(quantizeCheckpoint(dir, folder(), grouped)),
    ]) {
      expect(error).to.be.instanceOf(ConfigError);
      expect(error.message)
        .to.contain(dir)
        .and.to.match(/quantised already/);
    }
    expect(await rejection(quantizeCheckpoint(dir, dir, grouped))).to.be.instanceOf(ArgumentError);
  });

  it('refuses a group size beyond every input, leaving nothing behind', async () => {
    const dir = fixture('goldens/int4');
    const before = tf.memory().numTensors;
    const error = await rejection(load(dir, { quantization_config: new Int4WeightOnlyConfig({ group_size: 256 }) }));
    expect(error).to.be.instanceOf(ConfigError);
    expect(error.message).to.match(/64 input channels are no multiple of group_size 256/);
    const dst = path.join(folder(), 'out');
    await rejection(quantizeCheckpoint(dir, dst, new Int4WeightOnlyConfig({ group_size: 256 })));
    expect(fs.existsSync(dst)).to.equal(false);
    expect(tf.memory().numTensors).to.equal(before);
  });

  it('refuses torn, incomplete and damaged folders, naming what is wrong', async () => {
    const dir = folder();
    await (await load(golden.dir, { quantization_config: grouped })).save_pretrained(dir);
    const file = path.join(dir, 'model.safetensors');
    const whole = fs.readFileSync(file);
    fs.writeFileSync(file, whole.subarray(0, whole.length - 100));
    expect(await rejection(load(dir))).to.be.instanceOf(CheckpointError);
    // each damage to the header of the file, in the same number of bytes
    const rename = (from: string, to: string): void => {
      const bytes = Buffer.from(whole);
      const at = bytes.indexOf(`"${from}":{`);
      expect(at, from).to.be.greaterThan(0);
      bytes.write(to, at + 1);
      fs.writeFileSync(file, bytes);
    };
    const layer = (golden.inputs.quantised as string[]).at(-1)!.replace(/weight$/, '');
    for (const [part, replaced] of [
      ['_weight_scale', '_weight_scalf'],
      ['_weight_zero_point', '_weight_zero_pofnt'],
      ['_weight_qdata', '_weight_qdatb'],
    ]) {
      rename(layer + part, layer + replaced);
      const error = await rejection(load(dir));
      expect(error).to.be.instanceOf(CheckpointError);
      expect(error.message).to.contain(layer);
    }
    fs.writeFileSync(file, whole);
    const config = path.join(dir, 'config.json');
    const text = fs.readFileSync(config, 'utf8');
    fs.writeFileSync(config, text.replace('"torchao"', '"gptq"'));
    expect((await rejection(load(dir))).message).to.match(/gptq/);
    fs.writeFileSync(config, text);
    expect(quantizationOf((await load(dir)).weights)!.matrices.size).to.equal(
      (golden.inputs.quantised as string[]).length,
    );
  });

  it('a weight that is not finite is named', async () => {
    const dir = folder();
    const weight = (golden.inputs.quantised as string[]).at(-1)!;
    const tensors = [...readTensors(path.join(golden.dir, 'model.safetensors'))].map(
      ([name, { shape, data }]): OutTensor => {
        const values = data as Float32Array;
        if (name === weight) values[2 * shape[1]! + 5] = Infinity;
        return { name, shape, dtype: 'F32', data: () => encodeFloat32(values, 'F32') };
      },
    );
    await saveCheckpoint(dir, golden.config, tensors);
    const error = await rejection(quantizeCheckpoint(dir, folder(), grouped));
    expect(error).to.be.instanceOf(CheckpointError);
    expect(error.message).to.include(`${weight}: row 2 holds Infinity`);
  });
});
