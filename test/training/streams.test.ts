/** Runs over streams of examples: where they end, and where a resumed one goes on. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';
import { type Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import {
  listCheckpoints,
  type TokenizedExample,
  Trainer,
  type TrainerOptions,
  type TrainingArguments,
} from '../../src/training/index.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach, folderForEach } from '../support/cleanup.js';
import { LEARNER, tinyModel } from '../support/tiny_model.js';

const SIZES = { ...LEARNER, tie_word_embeddings: false };
const examples: TokenizedExample[] = Array.from({ length: 6 }, (_, i) => ({
  input_ids: Array.from({ length: 5 + i }, (_, j) => (i * 3 + j * j) % 31),
}));
async function* stream(): AsyncGenerator<TokenizedExample> {
  for (const example of examples) yield Promise.resolve(example);
}

describe('Trainer on streams', () => {
  before(() => useBackend('tensorflow'));
  const made = disposedAfterEach();
  const dir = folderForEach('stream');

  const fresh = (): Mamba2ForCausalLM => tinyModel(SIZES).model;
  function trainerOf(
    train_dataset: TrainerOptions['train_dataset'],
    args: Partial<TrainingArguments>,
    more: Partial<TrainerOptions> = {},
  ): Trainer {
    const model = fresh();
    const trainer = new Trainer({
      model,
      train_dataset,
      max_length: 16,
      args: {
        output_dir: dir(),
        engine: 'eager',
        learning_rate: 1e-2,
        per_device_train_batch_size: 2,
        logging_steps: 1,
        save_strategy: 'no',
        ...args,
      },
      ...more,
    });
    made.push(model, trainer);
    return trainer;
  }
  const losses = (trainer: Trainer): number[] => trainer.state.log_history.map((e) => e['loss']!);

  it('ends where a stream ends that gives nothing a second time, and says so', async () => {
    let asked = 0;
    const once = stream();
    const source = {
      [Symbol.asyncIterator](): AsyncGenerator<TokenizedExample> {
        if (++asked > 5) throw new Error('asked again and again');
        return once;
      },
    };
    const warnings: string[] = [];
    const trainer = trainerOf(source, { max_steps: 100 }, { on_warning: (message) => warnings.push(message) });
    const out = await trainer.train();
    expect(out.global_step).to.equal(3);
    expect(out.stopped_by).to.equal('data');
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.match(/end at step 3, and max_steps is 100/);
  });

  it('evaluates and saves where a pass ends', async () => {
    const trainer = trainerOf(
      stream,
      { max_steps: 7, eval_strategy: 'epoch', save_strategy: 'epoch' },
      { eval_dataset: stream },
    );
    await trainer.train();
    const evaluations = trainer.state.log_history.filter((e) => 'eval_loss' in e);
    expect(evaluations.map((e) => e.step)).to.deep.equal([3, 6]);
    expect(listCheckpoints(dir()).map((c) => c.step)).to.deep.equal([3, 6, 7]);
  });

  it('refuses a stream without any example', async () => {
    let asked = 0;
    const none = async function* (): AsyncGenerator<TokenizedExample> {
      if (++asked > 5) throw new Error('asked again and again');
      yield* [];
    };
    const error = await trainerOf(none, { max_steps: 2 })
      .train()
      .catch((e: Error) => e);
    expect(error).to.be.instanceOf(Error);
    expect((error as Error).message).to.match(/the stream of examples has none to learn from/);
  });

  for (const [what, more, each] of [
    ['past its first pass', {}, 3],
    ['with batches accumulated, a pass ending within an update', { gradient_accumulation_steps: 2 }, 2],
  ] as const) {
    it(`resumes to the bit: ${what}`, async () => {
      const setup = { max_steps: 8, save_strategy: 'steps', save_steps: 1, ...more } as const;
      const whole = trainerOf(stream, { ...setup, output_dir: path.join(dir(), 'a') });
      await whole.train();
      expect(whole.state.epoch).to.equal(Math.ceil(8 / each) - 1);
      for (const step of [2, 3, 4, 6, 7]) {
        const from = path.join(dir(), 'a', `checkpoint-${step}`);
        const resumed = trainerOf(stream, { ...setup, save_strategy: 'no', output_dir: path.join(dir(), `b${step}`) });
        await resumed.train({ resume_from_checkpoint: from });
        expect(losses(resumed), `from ${step}`).to.deep.equal(losses(whole));
        // snapshots of earlier versions do not say where their pass began
        const file = path.join(from, 'trainer_state.json');
        const { epoch_start, ...old } = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown>;
        expect(epoch_start).to.equal(each * (old['epoch'] as number));
        fs.writeFileSync(file, JSON.stringify(old));
        const again = trainerOf(stream, { ...setup, save_strategy: 'no', output_dir: path.join(dir(), `c${step}`) });
        await again.train({ resume_from_checkpoint: from });
        expect(losses(again), `from ${step}, of an earlier version`).to.deep.equal(losses(whole));
      }
    });
  }
});
