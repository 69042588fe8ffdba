/**
 * One half of scripts/check/check_peft.py: `write DIR` makes a small model, an adapter on it and its logits; `read DIR` reads
 * the adapter that PEFT wrote and its logits, and compares.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { get_peft_model, load_peft_model, save_adapter } from '../../src/peft/index.js';

const [mode, dir] = process.argv.slice(2) as ['write' | 'read', string];
const input_ids = [
  [3, 7, 1, 9, 30, 2, 4, 4, 11],
  [8, 8, 2, 0, 5, 29, 17, 3, 6],
];
await tf.setBackend('cpu');

function logits(model: {
  forward(inputs: { input_ids: number[][]; use_cache: boolean }): { logits: tf.Tensor3D };
}): Float32Array {
  const out = model.forward({ input_ids, use_cache: false }).logits;
  const values = out.dataSync<'float32'>().slice();
  out.dispose();
  return values;
}

if (mode === 'write') {
  const model = new Mamba2ForCausalLM(
    new Mamba2Config({
      hidden_size: 32,
      num_heads: 8,
      head_dim: 8,
      n_groups: 1,
      state_size: 16,
      vocab_size: 61,
      num_hidden_layers: 2,
      chunk_size: 8,
      tie_word_embeddings: false,
    }),
  );
  await model.save_pretrained(path.join(dir, 'base'));
  const settings = {
    r: 4,
    lora_alpha: 8,
    use_rslora: true,
    target_modules: ['in_proj', 'embeddings', 'lm_head'],
    modules_to_save: ['norm_f'],
    rank_pattern: { 'layers.1.mixer.in_proj': 2 },
    init_lora_weights: false,
  };
  const peft = get_peft_model(model, settings, { seed: 5 });
  const norm = peft.trainable().get('backbone.norm_f.weight')!;
  norm.assign(tf.mul(norm, 1.5));
  await save_adapter(peft, path.join(dir, 'ours'));
  fs.writeFileSync(path.join(dir, 'ours.json'), JSON.stringify({ input_ids, logits: [...logits(peft)] }));
} else {
  const model = await Mamba2ForCausalLM.from_pretrained(path.join(dir, 'base'), { device: 'js' });
  const peft = await load_peft_model(model, path.join(dir, 'theirs'));
  const want = (JSON.parse(fs.readFileSync(path.join(dir, 'theirs.json'), 'utf8')) as { logits: number[] }).logits;
  const worst = logits(peft).reduce((most, v, i) => Math.max(most, Math.abs(v - want[i]!)), 0);
  process.stdout.write(`PEFT's adapter here: largest difference of logits ${worst.toExponential(1)}\n`);
  if (!(worst < 1e-4)) process.exit(1);
}
