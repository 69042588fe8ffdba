/** A training run that ends when it is told to: node --import tsx endless_run.ts DIR [save_steps] [max_steps]. */
import * as tf from '@tensorflow/tfjs';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { Trainer } from '../../src/training/index.js';
import { useBackend } from './backends.js';
import { LEARNER } from './tiny_model.js';

const [dir, save = '1000', most = '100000'] = process.argv.slice(2);
await useBackend('tensorflow');
const model = new Mamba2ForCausalLM(new Mamba2Config(LEARNER));
let seed = 1;
for (const v of Object.values(model.weights.all()))
  tf.tidy(() => (v as tf.Variable).assign(tf.randomNormal(v.shape as number[], 0, 0.2, 'float32', seed++)));
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
