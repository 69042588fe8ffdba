/** Examples without a label that counts, and labels that are not as many as ids. */
import * as path from 'node:path';
import { expect } from 'chai';
import {
  collate,
  collatePacked,
  type ExampleSource,
  listCheckpoints,
  prepareBatch,
  Trainer,
  type TrainerOptions,
} from '../../src/training/index.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach, folderForEach } from '../support/cleanup.js';
import { tinyModel } from '../support/tiny_model.js';

const good = [{ input_ids: [1, 2, 3, 4] }, { input_ids: [5, 6, 7] }, { input_ids: [2, 4, 6, 8, 10] }];
/** Nothing to learn: one token, and labels left out behind the first, which none predicts. */
const idle = [{ input_ids: [3] }, { input_ids: [1, 2, 3], labels: [1, -100, -100] }];
const short = { input_ids: [1, 2, 3], labels: [1, 2] };
const streamOf = (list: typeof good): (() => AsyncGenerator<(typeof good)[number]>) =>
  async function* () {
    for (const example of list) yield Promise.resolve(example);
  };

describe('labels of training', () => {
  before(() => useBackend('tensorflow'));
  const made = disposedAfterEach();
  const dir = folderForEach('labels');

  function trainerOf(train_dataset: ExampleSource, args: Partial<TrainerOptions['args']> = {}): Trainer {
    const { model } = tinyModel();
    const common = { output_dir: dir(), engine: 'eager', per_device_train_batch_size: 1, logging_steps: 1 } as const;
    const trainer = new Trainer({
      model,
      train_dataset,
      eval_dataset: good,
      max_length: 8,
      args: { ...common, ...args },
    });
    made.push(model, trainer);
    return trainer;
  }
  const messageOf = (run: Promise<unknown>): Promise<string> =>
    run.then(
      () => '',
      (error: Error) => error.message,
    );

  it('evaluates and saves at the end of each epoch though some examples have nothing to learn from', async () => {
    for (const more of [{}, { gradient_accumulation_steps: 2 }]) {
      const output_dir = path.join(dir(), String(Object.keys(more).length));
      const setup = {
        eval_strategy: 'epoch',
        save_strategy: 'epoch',
        num_train_epochs: 2,
        output_dir,
        ...more,
      } as const;
      const trainer = trainerOf([...good, ...idle], setup);
      await trainer.train();
      const each = 'gradient_accumulation_steps' in more ? 2 : 3;
      const evaluations = trainer.state.log_history.filter((e) => 'eval_loss' in e);
      expect(evaluations.map((e) => [e.step, e['epoch']])).to.deep.equal([
        [each, 1],
        [2 * each, 2],
      ]);
      expect(listCheckpoints(output_dir).map((c) => c.step)).to.deep.equal([each, 2 * each]);
    }
  });

  it('resumes to the bit among them, a list and a stream', async () => {
    const all = [idle[0]!, ...good, idle[1]!];
    for (const [name, data] of [
      ['list', all],
      ['stream', streamOf(all)],
    ] as const) {
      const output_dir = path.join(dir(), name);
      const setup = { max_steps: 8, save_steps: 1, learning_rate: 1e-2, output_dir };
      const whole = trainerOf(data, setup);
      await whole.train();
      for (const step of [2, 3, 5]) {
        const resumed = trainerOf(data, { ...setup, output_dir: `${output_dir}-${step}` });
        await resumed.train({ resume_from_checkpoint: path.join(output_dir, `checkpoint-${step}`) });
        const losses = (trainer: Trainer): number[] => trainer.state.log_history.map((e) => e['loss']!);
        expect(losses(resumed), `${name} from ${step}`).to.deep.equal(losses(whole));
      }
    }
  });

  it('refuses data of which no position counts', async () => {
    expect(await messageOf(trainerOf(idle).train())).to.match(/None of the 2 examples has anything to learn from/);
    expect(await messageOf(trainerOf(good).evaluate(idle))).to.match(/None of the 2 examples/);
    expect(await messageOf(trainerOf(good).evaluate(streamOf(idle)))).to.match(/stream without a position that counts/);
  });

  it('refuses labels that are not as many as ids, saying how many there are', async () => {
    const want = /Example (\d) has 2 labels for 3 input_ids, expected one for each/;
    expect(want.exec(await messageOf(trainerOf([...good, short]).train()))?.[1]).to.equal('3');
    expect(want.exec(await messageOf(trainerOf(streamOf([good[0]!, short]), { max_steps: 3 }).train()))?.[1]).to.equal(
      '1',
    );
    expect(() => collate([good[0]!, short], { pad_token_id: 0 })).to.throw(want);
    expect(() => collatePacked([[short, good[0]!]], 8, 0)).to.throw(want);
    const input_ids = [
      [1, 2, 3],
      [4, 5, 6],
    ];
    expect(() =>
      prepareBatch(
        {
          input_ids,
          labels: [
            [1, 2, 3],
            [4, 5],
          ],
        },
        11,
      ),
    ).to.throw(/labels has 2 entries in row 1, expected 2 rows of 3 entries/);
    expect(() => prepareBatch({ input_ids, labels: [[1, 2, 3]] }, 11)).to.throw(
      /labels has 1 rows, expected 2 rows of 3/,
    );
  });
});
