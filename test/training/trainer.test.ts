/** Runs of the Trainer: learning, resumption, signals, broken losses, logs, limits. */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { TrainingError } from '../../src/base/errors.js';
import { get_peft_model, load_peft_model } from '../../src/peft/index.js';
import {
  EarlyStoppingCallback,
  listCheckpoints,
  type TrainableModel,
  Trainer,
  type TrainingArguments,
  trainableOf,
  trainingArguments,
} from '../../src/training/index.js';
import { maskedCrc32c } from '../../src/training/logs.js';
import { saveSnapshot } from '../../src/training/snapshots.js';
import { useBackend } from '../support/backends.js';
import { learner } from '../support/learner.js';

/** Counting up from somewhere: easy to learn. */
const examples = Array.from({ length: 23 }, (_, i) => ({
  input_ids: Array.from({ length: 5 + (i % 7) }, (_, j) => (i * 3 + j) % 31),
}));

let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'train-'))));
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const args = (more: Partial<TrainingArguments> = {}): { output_dir: string } & Partial<TrainingArguments> => ({
  output_dir: dir,
  engine: 'eager',
  learning_rate: 1e-2,
  per_device_train_batch_size: 4,
  logging_steps: 1,
  save_strategy: 'no',
  num_train_epochs: 2,
  ...more,
});
const values = (model: TrainableModel): Map<string, Float32Array> =>
  new Map([...trainableOf(model).trainable()].map(([name, v]) => [name, v.dataSync<'float32'>().slice()]));
const losses = (trainer: Trainer): number[] =>
  trainer.state.log_history.filter((e) => 'loss' in e).map((e) => e['loss']!);

describe('Trainer', () => {
  before(() => useBackend('tensorflow'));

  it('learns: the loss falls, logs and curve are written', async () => {
    const model = learner();
    const trainer = new Trainer({
      model,
      args: args({ num_train_epochs: 8, eval_strategy: 'epoch', report_to: ['tensorboard'] }),
      train_dataset: examples,
      eval_dataset: examples,
    });
    const before = await trainer.evaluate();
    const out = await trainer.train();
    const after = await trainer.evaluate();
    expect(out.global_step).to.equal(8 * 6);
    expect(after.eval_loss).to.be.below(before.eval_loss * 0.6);
    expect(after.eval_perplexity).to.be.closeTo(Math.exp(after.eval_loss), 1e-6);
    const lines = fs
      .readFileSync(path.join(dir, 'log.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((l) => JSON.parse(l) as Record<string, number>);
    expect(lines.filter((l) => 'loss' in l)).to.have.length(48);
    expect(lines.filter((l) => 'eval_loss' in l)).to.have.length(9);
    expect(fs.readFileSync(path.join(dir, 'loss.svg'), 'utf8')).to.match(/^<svg .*polyline.*evaluation.*<\/svg>\n$/s);
    const [events] = fs.readdirSync(path.join(dir, 'runs'));
    const bytes = fs.readFileSync(path.join(dir, 'runs', events!));
    let records = 0;
    for (let at = 0; at < bytes.length; records++) {
      const n = Number(bytes.readBigUInt64LE(at));
      expect(bytes.readUInt32LE(at + 12 + n)).to.equal(maskedCrc32c(bytes.subarray(at + 12, at + 12 + n)));
      at += 16 + n;
    }
    expect(records).to.be.above(48 * 4);
    trainer.dispose();
    model.dispose();
  });

  for (const [what, more] of [
    ['whole model', {}],
    ['accumulating, in the middle of an epoch', { gradient_accumulation_steps: 2 }],
    ['compiled', { engine: 'compiled', torch_compile: false, group_by_length: false, max_steps: 7 }],
  ] as const) {
    it(`resumes to the bit: ${what}`, async () => {
      const setup = args({
        save_strategy: 'steps',
        save_steps: 4,
        lr_scheduler_type: 'cosine',
        weight_decay: 0.1,
        ...more,
      });
      const one = learner();
      const whole = new Trainer({
        model: one,
        args: { ...setup, output_dir: path.join(dir, 'a') },
        train_dataset: examples,
      });
      await whole.train();
      const stop = {
        on_step_end: (_a: unknown, state: { global_step: number }, control: { should_stop: boolean }) =>
          void (control.should_stop = state.global_step >= 4),
      };
      const two = learner();
      const first = new Trainer({
        model: two,
        args: { ...setup, output_dir: path.join(dir, 'b') },
        train_dataset: examples,
        callbacks: [stop],
      });
      expect((await first.train()).stopped_by).to.equal('callback');
      expect(listCheckpoints(path.join(dir, 'b')).map((c) => c.step)).to.deep.equal([4]);
      first.dispose();
      const three = learner(); // another process would begin with other values
      const second = new Trainer({
        model: three,
        args: { ...setup, output_dir: path.join(dir, 'b') },
        train_dataset: examples,
      });
      await second.train({ resume_from_checkpoint: true });
      expect(losses(second)).to.deep.equal(losses(whole));
      const want = values(one);
      for (const [name, got] of values(three)) expect(got, name).to.deep.equal(want.get(name));
      [whole, second, one, two, three].forEach((x) => x.dispose());
    });
  }

  it('resumes an adapter to the bit, and leaves an adapter folder', async () => {
    const setup = args({ save_strategy: 'steps', save_steps: 3, max_steps: 6, learning_rate: 2e-2 });
    const lora = { r: 2, lora_dropout: 0.2, target_modules: ['in_proj', 'embeddings'] };
    const base = learner();
    const one = get_peft_model(base, lora, { seed: 1 });
    const whole = new Trainer({ model: one, args: setup, train_dataset: examples });
    await whole.train();
    const want = values(one);
    one.dispose();
    const two = get_peft_model(base, lora, { seed: 2 });
    const resumed = new Trainer({
      model: two,
      args: { ...setup, output_dir: path.join(dir, 'b') },
      train_dataset: examples,
    });
    await resumed.train({ resume_from_checkpoint: path.join(dir, 'checkpoint-3') });
    for (const [name, got] of values(two)) expect(got, name).to.deep.equal(want.get(name));
    two.dispose();
    const loaded = await load_peft_model(base, path.join(dir, 'checkpoint-6'));
    for (const [name, got] of values(loaded)) expect(got, name).to.deep.equal(want.get(name));
    [loaded, whole, resumed, base].forEach((x) => x.dispose());
  });

  it('keeps as many snapshots as it should, and removes what a killed run left', async () => {
    const model = learner();
    fs.mkdirSync(path.join(dir, '.checkpoint-9.part'));
    const trainer = new Trainer({
      model,
      args: args({ save_strategy: 'steps', save_steps: 2, save_total_limit: 2 }),
      train_dataset: examples,
    });
    await trainer.train();
    expect(listCheckpoints(dir).map((c) => c.step)).to.deep.equal([10, 12]);
    expect(fs.readdirSync(dir).filter((name) => name.includes('part'))).to.deep.equal([]);
    trainer.dispose();
    model.dispose();
  });

  it('a save that fails costs no earlier snapshot', async () => {
    const model = learner();
    const trainer = new Trainer({
      model,
      args: args({ save_strategy: 'steps', save_steps: 2, max_steps: 2 }),
      train_dataset: examples,
    });
    await trainer.train();
    const broken = {
      sync: () => undefined,
      steps: 3,
      moments: () => {
        throw new Error('disk on fire');
      },
    } as never;
    let message = '';
    await saveSnapshot(model, broken, { ...trainer.state, global_step: 3 }, dir, 1).catch(
      (error: Error) => (message = error.message),
    );
    expect(message).to.match(/checkpoint-3.*disk on fire/);
    expect(fs.readdirSync(dir).filter((n) => n.includes('checkpoint'))).to.deep.equal(['checkpoint-2']);
    trainer.dispose();
    model.dispose();
  });

  it('stops at a loss that is not finite, naming step and batch, with the weights of the step before', async () => {
    const model = learner();
    const poison = {
      on_step_end: (_a: unknown, state: { global_step: number }) => {
        if (state.global_step === 3)
          tf.tidy(() => (model.weights.all()['backbone.norm_f.weight'] as tf.Variable).assign(tf.fill([16], Infinity)));
      },
    };
    const trainer = new Trainer({
      model,
      args: args({ save_strategy: 'steps', save_steps: 2 }),
      train_dataset: examples,
      callbacks: [poison],
    });
    const error = await trainer.train().then(
      () => null,
      (e: Error) => e,
    );
    expect(error?.name).to.equal('TrainingError');
    expect(error?.message).to.match(/Step 4 \(epoch 0, batches 3 to 3\)/);
    expect(listCheckpoints(dir).map((c) => c.step)).to.deep.equal([2]);
    trainer.dispose();
    model.dispose();
  });

  it('stops early when the evaluation loss rises', async () => {
    const model = learner();
    const trainer = new Trainer({
      model,
      args: args({ learning_rate: 1, num_train_epochs: 20, eval_strategy: 'epoch' }),
      train_dataset: examples,
      eval_dataset: examples,
      callbacks: [new EarlyStoppingCallback(2)],
    });
    const out = await trainer.train();
    expect(out.stopped_by).to.equal('callback');
    expect(out.global_step).to.be.below(20 * 6);
    trainer.dispose();
    model.dispose();
  });

  it('logs after a resumption between entries what the unbroken run logs', async () => {
    const setup = { logging_steps: 3, save_strategy: 'steps', save_steps: 4, max_steps: 6 } as const;
    const [one, two] = [learner(), learner()];
    const whole = new Trainer({ model: one, args: args(setup), train_dataset: examples });
    await whole.train();
    const resumed = new Trainer({
      model: two,
      args: args({ ...setup, output_dir: path.join(dir, 'b') }),
      train_dataset: examples,
    });
    await resumed.train({ resume_from_checkpoint: path.join(dir, 'checkpoint-4') });
    expect(losses(whole)).to.have.length(2);
    expect(losses(resumed)).to.deep.equal(losses(whole));
    [whole, resumed, one, two].forEach((x) => x.dispose());
  });

  it('stops early at the same step when it is resumed', async () => {
    const run = async (from?: number): Promise<number> => {
      const model = learner();
      const trainer = new Trainer({
        model,
        args: args({
          learning_rate: 0, // no evaluation is better than the first
          max_steps: 20,
          eval_strategy: 'steps',
          eval_steps: 1,
          save_strategy: 'steps',
          save_steps: 1,
          output_dir: path.join(dir, String(from)),
        }),
        train_dataset: examples,
        eval_dataset: examples,
        callbacks: [new EarlyStoppingCallback(3)],
      });
      const resume_from_checkpoint = from && path.join(dir, 'undefined', `checkpoint-${from}`);
      const { global_step } = await trainer.train(resume_from_checkpoint ? { resume_from_checkpoint } : {});
      trainer.dispose();
      model.dispose();
      return global_step;
    };
    expect(await run()).to.equal(4);
    expect([await run(1), await run(2), await run(3)]).to.deep.equal([4, 4, 4]);
  });

  it('takes a list of 200,000 examples', async () => {
    const model = learner();
    const trainer = new Trainer({
      model,
      args: args({ max_steps: 1 }),
      train_dataset: new Array<{ input_ids: number[] }>(200_000).fill({ input_ids: [1, 2, 3] }),
    });
    expect((await trainer.train()).global_step).to.equal(1);
    trainer.dispose();
    model.dispose();
  });

  it('refuses an eval_strategy without eval_dataset before it trains', () => {
    const model = learner();
    expect(() => new Trainer({ model, args: args({ eval_strategy: 'steps' }), train_dataset: examples })).to.throw(
      /eval_strategy is 'steps' and there is no eval_dataset/,
    );
    model.dispose();
  });

  it('refuses wrong options by name, and a snapshot of another model', async () => {
    for (const [more, message] of [
      [{ learning_rat: 1 }, /has no option learning_rat\. Did you mean learning_rate\?/],
      [{ lr_scheduler_type: 'step' }, /lr_scheduler_type is "step"/],
      [{ gradient_accumulation_steps: 0 }, /gradient_accumulation_steps is 0/],
    ] as const)
      expect(() => trainingArguments({ output_dir: dir, ...(more as object) })).to.throw(message);
    const model = learner();
    const trainer = new Trainer({
      model,
      args: args({ save_strategy: 'steps', max_steps: 1 }),
      train_dataset: examples,
    });
    await trainer.train();
    const peft = get_peft_model(model, { r: 2 });
    const other = new Trainer({ model: peft, args: args({ max_steps: 1 }), train_dataset: examples });
    const error = await other.train({ resume_from_checkpoint: true }).then(
      () => null,
      (e: Error) => e,
    );
    expect(error?.message).to.match(/another model or adapter/);
    [peft, trainer, model].forEach((x) => x.dispose());
  });

  for (const signal of ['SIGTERM', 'SIGHUP'] as const)
    it(`ends with a snapshot on ${signal}, and lets no other run into its folder`, async function () {
      this.timeout(120_000);
      const child = spawn(process.execPath, ['--import', 'tsx', 'test/support/endless_run.ts', dir], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let text = '';
      let refused: Promise<Error | null> | undefined;
      child.stdout.on('data', (chunk: Buffer) => {
        text += String(chunk);
        if (!text.includes('step 3\n') || refused) return;
        const model = learner();
        const trainer = new Trainer({ model, args: args({ max_steps: 1 }), train_dataset: examples });
        refused = trainer
          .train()
          .then(
            () => null,
            (e: Error) => e,
          )
          .finally(() => {
            [trainer, model].forEach((x) => x.dispose());
            child.kill(signal);
          });
      });
      const code = await new Promise((resolve) => child.on('exit', resolve));
      expect(code).to.equal(0);
      const error = await refused;
      expect(error).to.be.instanceOf(TrainingError);
      expect(error!.message).to.include(`process ${child.pid} trains into this folder`);
      expect(text).to.match(new RegExp(`stopped by ${signal}`));
      const last = listCheckpoints(dir).at(-1)!;
      expect(text.trim().endsWith(`at ${last.step}`)).to.equal(true);
      expect(fs.readdirSync(dir).filter((name) => name.includes('lock'))).to.deep.equal([]);
    });
});
