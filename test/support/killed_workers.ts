/** A run on two workers, one of which is killed at one moment after another: each time it must end with that one's name, and go on. */
import { expect } from 'chai';
import { Trainer, type TrainingArguments } from '../../src/training/index.js';
import { learner, unevenExamples } from './learner.js';
import { type RunningWorker, startTestWorker } from './test_worker.js';

/** When a worker is killed. */
export interface Moment {
  /** Which of the two; TensorFlow's session is with the first. */
  worker: 0 | 1;
  /** After so many updates since the run began or went on; 0: of the beginning itself. */
  updates: number;
  /** And so many milliseconds. */
  delay: number;
}

type Args = Partial<TrainingArguments> & { output_dir: string };

const STEPS = 24;
/** An error must be there after so long. */
const LIMIT = 30_000;

/** @param onUpdate called after each update, and with 0 before the first @returns the losses of all updates */
async function train(args: Args, resume: boolean, onUpdate?: (updates: number) => void): Promise<number[]> {
  const model = learner();
  let updates = 0;
  const trainer = new Trainer({
    model,
    args: {
      ...{ learning_rate: 1e-2, weight_decay: 0.01, per_device_train_batch_size: 7, gradient_accumulation_steps: 2 },
      ...{ max_steps: STEPS, logging_steps: 1, save_steps: 2, disable_tqdm: true, torch_compile: false },
      ...args,
    },
    train_dataset: unevenExamples,
    callbacks: [{ on_step_end: () => onUpdate?.(++updates) }],
    on_warning: () => undefined,
  });
  try {
    onUpdate?.(0);
    await trainer.train({ resume_from_checkpoint: resume });
    return trainer.state.log_history.filter((e) => 'loss' in e).map((e) => e['loss']!);
  } finally {
    trainer.dispose();
    model.dispose();
  }
}

/** @param root a folder for both runs */
export async function killAndResume(root: string, moments: readonly Moment[]): Promise<void> {
  const want = await train({ output_dir: `${root}/whole`, save_strategy: 'no' }, false);
  const workers: RunningWorker[] = await Promise.all([startTestWorker(), startTestWorker()]);
  const args = (): Args => ({
    output_dir: `${root}/killed`,
    workers: workers.map(({ address }) => address),
  });
  try {
    let begun = false;
    for (const { worker, updates, delay } of moments) {
      const { address, child, port } = workers[worker]!;
      const what = `worker ${worker} after ${updates} updates and ${delay} ms`;
      let killed = 0;
      const kill = (): void => {
        killed = performance.now();
        child.kill('SIGKILL');
      };
      const onUpdate = (count: number): void => {
        if (count === updates) setTimeout(kill, delay);
      };
      const error = await train(args(), begun, onUpdate).then(
        () => new Error(`${what}: the run ended well`),
        (e: Error) => e,
      );
      expect(killed, what).to.be.above(0);
      expect(performance.now() - killed, what).to.be.below(LIMIT);
      expect(error.message, what).to.include(address);
      begun ||= updates > 1; // there is a snapshot
      workers[worker] = await startTestWorker(port);
    }
    const got = await train(args(), begun);
    expect(got).to.have.length(want.length);
    got.forEach((loss, i) => expect(loss, `loss ${i}`).to.be.closeTo(want[i]!, 1e-5));
  } finally {
    for (const { child } of workers) child.kill('SIGKILL');
  }
}
