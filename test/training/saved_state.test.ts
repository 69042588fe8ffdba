/** Snapshots that are damaged: each file of checkpoint-N is checked like any input, and the model stays as it was. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { CheckpointError } from '../../src/base/errors.js';
import { SafetensorsFile, writeSafetensors } from '../../src/checkpoints/index.js';
import { lossCurve } from '../../src/training/logs.js';
import { Trainer } from '../../src/training/index.js';
import { useBackend } from '../support/backends.js';
import { folderForEach } from '../support/cleanup.js';
import { rejection } from '../support/errors.js';
import { tinyModel } from '../support/tiny_model.js';

describe('damaged snapshots', () => {
  before(() => useBackend('tensorflow'));
  const dir = folderForEach('saved');
  const examples = [{ input_ids: [1, 2, 3, 4] }, { input_ids: [2, 3, 4, 5] }];

  async function snapshot(): Promise<{ from: string; resume: () => Promise<Error>; dispose: () => void }> {
    const { model } = tinyModel();
    const args = { output_dir: dir(), engine: 'eager', max_steps: 3, logging_steps: 1 } as const;
    const trainer = new Trainer({ model, args, train_dataset: examples });
    await trainer.train();
    const first = (): number[] => [...(Object.values(model.weights.all())[0] as tf.Variable).dataSync()];
    const before = first();
    const resume = async (): Promise<Error> => {
      const error = await rejection(trainer.train({ resume_from_checkpoint: from }));
      expect(first()).to.deep.equal(before);
      return error;
    };
    const from = path.join(dir(), 'checkpoint-3');
    return { from, resume, dispose: () => [trainer, model].forEach((each) => each.dispose()) };
  }

  it('name the file and the key that is wrong', async () => {
    const { from, resume, dispose } = await snapshot();
    const file = path.join(from, 'trainer_state.json');
    const good = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown>;
    const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);
    // deeper values are refused by what reads the file, before a key is looked at
    const [deep, deeper] = [nested(400), nested(100_000)];
    for (const [key, values] of Object.entries({
      global_step: ['1e9', '"x"', '1.5', 'null', '-1', '[]', '1e400', deep],
      optimizer_steps: ['"3"', 'null', '1.5', '-3', '1e300'],
      max_steps: ['"x"', 'null', '-1'],
      epoch: ['"x"', 'null', '1e9', '-1'],
      epoch_start: ['"x"', '1e9', '-1', '0.5'],
      since_log: ['3', '{}', '{"loss":"x","steps":0}', '{"loss":0,"steps":1e9}'],
      num_input_tokens_seen: ['null', '"x"', '-1'],
      log_history: ['null', '{}', '[3]', '[{"step":1e9}]', '[{"step":1,"loss":"x"}]', '[{"loss":1}]', deep],
      best_metric: ['"x"', '[]'],
      best_step: ['1e9', '"x"'],
    })) {
      for (const value of values) {
        const text = JSON.stringify({ ...good, [key]: 'VALUE' }).replace('"VALUE"', value);
        fs.writeFileSync(file, text);
        const error = await resume();
        const what = `${key}: ${value.slice(0, 30)}`;
        expect(error, what).to.be.instanceOf(CheckpointError);
        expect(error.message, what).to.include(file).and.include(key);
        expect(error.message.length, what).to.be.below(500);
      }
    }
    const whole = ['', '[]', 'null', '3', '{', '{"global_step": NaN}', deeper, `{"global_step": ${deeper}}`, '{}'];
    for (const text of whole) {
      fs.writeFileSync(file, text);
      const error = await resume();
      expect(error, text.slice(0, 30)).to.be.instanceOf(CheckpointError);
      expect(error.message).to.include(file);
    }
    dispose();
  });

  it('hold tensors that are tensors of floats, and numbers', async () => {
    const { from, resume, dispose } = await snapshot();
    const file = path.join(from, 'training_state.safetensors');
    const whole = fs.readFileSync(file);
    const opened = await SafetensorsFile.open(file);
    const tensors = [...opened.entries].map(([name, { dtype, shape }]) => ({
      name,
      dtype,
      shape,
      data: opened.readSync(name),
    }));
    await opened.close();
    type Written = (typeof tensors)[number];
    const damage = async (part: string, change: (tensor: Written) => Written): Promise<Error> => {
      const at = tensors.findLastIndex(({ name }) => name.startsWith(part));
      const changed = tensors.map((each, i) => (i === at ? change(each) : each));
      await writeSafetensors(
        file,
        changed.map(({ data, ...each }) => ({ ...each, data: () => data })),
      );
      return resume();
    };
    const holding = (value: number) => (tensor: Written) => {
      const data = new Uint8Array(tensor.data);
      new DataView(data.buffer).setFloat32(0, value, true);
      return { ...tensor, data };
    };
    for (const [part, change] of [
      ['value.', holding(NaN)],
      ['first.', holding(Infinity)],
      ['second.', holding(-1)],
      ['second.', (t: Written) => ({ ...t, dtype: 'I32' as const })],
    ] as const) {
      const error = await damage(part, change);
      expect(error, part).to.be.instanceOf(CheckpointError);
      expect(error.message).to.include(from).and.include(part);
    }
    for (const length of [0, 7, 100, whole.length - 5]) {
      fs.writeFileSync(file, whole.subarray(0, length));
      expect(await resume(), `cut to ${length}`).to.be.instanceOf(CheckpointError);
    }
    fs.rmSync(file);
    expect(await resume()).to.be.instanceOf(CheckpointError);
    dispose();
  });

  it('a long log has a curve', () => {
    const history = Array.from({ length: 300_000 }, (_, step) => ({ step, loss: 1 / (step + 1) }));
    expect(lossCurve(history)).to.match(/^<svg/);
  });
});
