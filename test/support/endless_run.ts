/** A training run that ends when it is told to: node --import tsx endless_run.ts DIR [save_steps] [max_steps]. */
import { Trainer } from '../../src/training/index.js';
import { useBackend } from './backends.js';
import { learner } from './learner.js';

const [dir, save = '1000', most = '100000'] = process.argv.slice(2);
await useBackend('tensorflow');
const model = learner();
const examples = Array.from({ length: 23 }, (_, i) => ({
  input_ids: Array.from({ length: 5 + (i % 7) }, (_, j) => (i * 3 + j) % 31),
}));
const trainer = new Trainer({
  model,
  args: {
    output_dir: dir!,
    engine: 'eager',
    learning_rate: 1e-3,
    per_device_train_batch_size: 4,
    max_steps: Number(most),
    save_steps: Number(save),
    save_total_limit: 2,
    logging_steps: 1,
  },
  train_dataset: examples,
  callbacks: [{ on_step_end: (_a, state) => void process.stdout.write(`step ${state.global_step}\n`) }],
});
const out = await trainer.train({ resume_from_checkpoint: true });
process.stdout.write(`stopped by ${out.stopped_by} at ${out.global_step}\n`);
