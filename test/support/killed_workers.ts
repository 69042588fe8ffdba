/** A run on two workers, one of which is killed at one moment after another: each time it must end with that one's name, and go on. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { Trainer, type TrainingArguments } from '../../src/training/index.js';
import { type RunningWorker, startTestWorker } from './test_worker.js';
import { LEARNER } from './tiny_model.js';

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

const examples = Array.from({ length: 29 }, (_, i) => {
  const input_ids = Array.from({ length: 8 }, (_, j) => (i * 3 + j) % 31);
  return { input_ids, labels: input_ids.map((id, j) => (j < i % 5 ? -100 : id)) };
});

/** The same start every time. */
function fresh(): Mamba2ForCausalLM {
  const model = new Mamba2ForCausalLM(new Mamba2Config(LEARNER));
  let seed = 1;
  for (const [name, v] of Object.entries(model.weights.all())) {
    const variable = v as tf.Variable;
    if (variable.rank > 1) tf.tidy(() => variable.assign(tf.randomNormal(variable.shape, 0, 0.2, 'float32', seed++)));
    else if (name.endsWith('dt_bias')) tf.tidy(() => variable.assign(tf.fill(variable.shape, -2)));
  }
  return model;
}

/** @param onUpdate called after each update, and with 0 before the first @returns the losses of all updates */
async function train(args: Args, resume: boolean, onUpdate?: (updates: number) => void): Promise<number[]> {
  const model = fresh();
  let updates = 0;
  const trainer = new Trainer({
    model,
    args: {
      ...{ learning_rate: 1e-2, weight_decay: 0.01, per_device_train_batch_size: 7, gradient_accumulation_steps: 2 },
      ...{ max_steps: STEPS, logging_steps: 1, save_steps: 2, disable_tqdm: true, torch_compile: false },
      ...args,
    },
    train_dataset: examples,
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
