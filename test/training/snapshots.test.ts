/** Snapshots of a run beside those of earlier ones: which are written, and what a run that is killed leaves. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import {
  listCheckpoints,
  type Moments,
  Trainer,
  type TrainerCallback,
  type TrainingArguments,
  type TrainingStep,
  trainableOf,
} from '../../src/training/index.js';
import { removeUnfinished, saveSnapshot } from '../../src/training/snapshots.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach, folderForEach } from '../support/cleanup.js';
import { LEARNER, tinyModel } from '../support/tiny_model.js';

const train_dataset = Array.from({ length: 8 }, (_, i) => ({
  input_ids: Array.from({ length: 5 + i }, (_, j) => (i * 3 + j * j) % 31),
}));
const values = (model: Mamba2ForCausalLM): [string, number[]][] =>
  [...trainableOf(model).trainable()].map(([name, v]) => [name, [...v.dataSync()]]);

/** A step that is not running. */
function atRest({ model }: Trainer, steps: number): TrainingStep {
  const zeros = (name: string): Float32Array => new Float32Array(trainableOf(model).trainable().get(name)!.size);
  const moments = (name: string): Moments => ({ first: zeros(name), second: zeros(name) });
  return { sync: () => undefined, steps, moments } as unknown as TrainingStep;
}

describe('snapshots of a run', () => {
  before(() => useBackend('tensorflow'));
  const made = disposedAfterEach();
  const dir = folderForEach('snapshots');

  function trainerOf(args: Partial<TrainingArguments>, callbacks: TrainerCallback[] = []): Trainer {
    const { model } = tinyModel(LEARNER);
    const common = { engine: 'eager', per_device_train_batch_size: 2, logging_steps: 1 } as const;
    const trainer = new Trainer({ model, train_dataset, callbacks, args: { output_dir: dir(), ...common, ...args } });
    made.push(model, trainer);
    return trainer;
  }

  it('ends with a snapshot though an earlier run left one of that step', async () => {
    await trainerOf({ max_steps: 2, learning_rate: 1e-3 }).train();
    const trainer = trainerOf({ max_steps: 2, learning_rate: 0.1 });
    await trainer.train();
    const saved = await Mamba2ForCausalLM.from_pretrained(path.join(dir(), 'checkpoint-2'), { engine: 'eager' });
    made.push(saved);
    expect(values(saved)).to.deep.equal(values(trainer.model as Mamba2ForCausalLM));
  });

  it('saves a step once, at its end and when a signal comes as well', async () => {
    for (const signal of [false, true]) {
      const steps: number[] = [];
      const output_dir = path.join(dir(), String(signal));
      const trainer = trainerOf({ max_steps: 4, save_steps: 2, output_dir }, [
        {
          on_step_end: (_a, { global_step }) =>
            void (signal && global_step === 4 && process.emit('SIGTERM', 'SIGTERM')),
          on_save: (_a, { global_step }) => void steps.push(global_step),
        },
      ]);
      expect((await trainer.train()).stopped_by).to.equal(signal ? 'SIGTERM' : null);
      expect(steps).to.deep.equal([2, 4]);
      // nothing is left to do, or to save
      await trainer.train({ resume_from_checkpoint: true });
      expect(steps).to.deep.equal([2, 4]);
    }
  });

  it('has a whole snapshot at every moment of replacing one and of deleting others', async () => {
    const trainer = trainerOf({ max_steps: 4, save_steps: 2 });
    await trainer.train();
    const want = fs.readdirSync(path.join(dir(), 'checkpoint-4')).sort();
    // what a killed run would leave: the folder before each change of it, and in the middle of each deletion
    const moments: string[] = [];
    const snapshots = `${dir()}-moments`;
    const keep = (half?: string): void => {
      const copy = path.join(snapshots, String(moments.length));
      fs.cpSync(dir(), copy, { recursive: true });
      const file = half && path.join(copy, path.relative(dir(), half), 'training_state.safetensors');
      if (file) fs.rmSync(file, { force: true });
      moments.push(copy);
    };
    const { rename, rm } = fs.promises;
    const inside = (name: string): boolean => path.dirname(name) === dir();
    fs.promises.rename = async (from, to) => {
      if (inside(String(to))) keep();
      await rename(from, to);
    };
    fs.promises.rm = async (name, options) => {
      if (inside(String(name))) {
        keep();
        keep(String(name));
      }
      await rm(name, options);
    };
    try {
      const step = atRest(trainer, 4);
      await saveSnapshot(trainer.model, step, { ...trainer.state }, dir(), 1);
    } finally {
      Object.assign(fs.promises, { rename, rm });
    }
    expect(moments.length).to.be.above(6);
    try {
      for (const moment of moments) {
        await removeUnfinished(moment);
        const left = listCheckpoints(moment);
        expect(left.at(-1)?.step, moment).to.equal(4);
        for (const { dir: one } of left) expect(fs.readdirSync(one).sort(), one).to.deep.equal(want);
        expect(fs.readdirSync(moment).filter((name) => name.startsWith('.'))).to.deep.equal([]);
      }
    } finally {
      fs.rmSync(snapshots, { recursive: true, force: true });
    }
    expect(fs.readdirSync(dir()).filter((name) => name.includes('checkpoint'))).to.deep.equal(['checkpoint-4']);
  });

  it('goes on from a snapshot that was about to be replaced', async () => {
    await trainerOf({ max_steps: 4, save_steps: 2 }).train();
    fs.renameSync(path.join(dir(), 'checkpoint-4'), path.join(dir(), '.checkpoint-4.old'));
    fs.cpSync(path.join(dir(), 'checkpoint-2'), path.join(dir(), '.checkpoint-4.part'), { recursive: true });
    fs.rmSync(path.join(dir(), 'checkpoint-2'), { recursive: true });
    const begun: number[] = [];
    const begin = {
      on_train_begin: (_a: unknown, state: { global_step: number }) => void begun.push(state.global_step),
    };
    await trainerOf({ max_steps: 5 }, [begin]).train({ resume_from_checkpoint: true });
    expect(begun).to.deep.equal([4]);
    expect(listCheckpoints(dir()).map((c) => c.step)).to.deep.equal([4, 5]);
    expect(fs.readdirSync(dir()).filter((name) => name.startsWith('.'))).to.deep.equal([]);
  });

  it('gives an earlier snapshot its name back when it cannot be replaced', async () => {
    const trainer = trainerOf({ max_steps: 2 });
    await trainer.train();
    const { rename } = fs.promises;
    fs.promises.rename = async (from, to) => {
      if (String(from).endsWith('checkpoint-2.part')) throw new Error('disk on fire');
      await rename(from, to);
    };
    const step = atRest(trainer, 2);
    const error = await saveSnapshot(trainer.model, step, { ...trainer.state }, dir(), null)
      .catch((e: Error) => e)
      .finally(() => (fs.promises.rename = rename));
    expect((error as Error).message).to.match(/disk on fire/);
    expect(fs.readdirSync(dir()).filter((name) => name.includes('checkpoint'))).to.deep.equal(['checkpoint-2']);
  });
});
