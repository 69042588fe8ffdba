/**
 * Saves models as save_pretrained() does, with the logits that they give here, for check_transformers.py to compare.
 *
 *     npx tsx scripts/check/write_for_transformers.ts /tmp/check && python scripts/check/check_transformers.py /tmp/check
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { Mamba2Config, type Mamba2ConfigFields } from '../../src/models/mamba2/config.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import type { SaveOptions } from '../../src/models/save.js';

const out = process.argv[2]!;
if (!out) throw new Error('usage: write_for_transformers.ts FOLDER');
const trained = fileURLToPath(new URL('../../models/tiny-books-mamba2', import.meta.url));

/** Small, with every option of the configuration that changes numbers. Up to 5.22 transformers norms over all channels, later per group. */
const small: Partial<Mamba2ConfigFields> = {
  vocab_size: 67,
  hidden_size: 16,
  num_heads: 4,
  head_dim: 8,
  state_size: 8,
  num_hidden_layers: 3,
  n_groups: 2,
  use_bias: true,
  chunk_size: 8,
  time_step_limit: [0.001, 0.5],
  layer_norm_epsilon: 1e-4,
};

async function write(name: string, model: Mamba2ForCausalLM, options: SaveOptions = {}): Promise<void> {
  const dir = path.join(out, name);
  await model.save_pretrained(dir, options);
  // what is on disk now, so that rounding to a smaller type is part of both sides
  const saved = await Mamba2ForCausalLM.from_pretrained(dir);
  const v = saved.config.vocab_size;
  // with one group both norms are the same
  const groups = saved.config.n_groups > 1 ? saved.config.norm_groups : null;
  const input_ids = [0, 1].map((row) => Array.from({ length: 21 }, (_, i) => (row * 31 + i * i * 7 + 3) % v));
  const { logits, cache } = saved.forward({ input_ids });
  fs.writeFileSync(path.join(dir, 'check.json'), JSON.stringify({ input_ids, groups, logits: await logits.array() }));
  logits.dispose();
  cache?.dispose();
  saved.dispose();
  process.stdout.write(`wrote ${dir}\n`);
}

/** Norms, biases and D away from their first values, where a swap of two would not show. */
function shake(model: Mamba2ForCausalLM): Mamba2ForCausalLM {
  for (const weight of Object.values(model.weights.all()) as tf.Variable[]) {
    tf.tidy(() => weight.assign(tf.add(weight, tf.randomUniform(weight.shape, -0.2, 0.2, 'float32', weight.size))));
  }
  return model;
}

const books = await Mamba2ForCausalLM.from_pretrained(trained, { device: 'cpu' });
await write('books', books);
await write('books-bfloat16', books, { dtype: 'bfloat16' });
await write('books-shards', books, { max_shard_size: '1MB' });
books.dispose();
for (const norm_groups of ['full', 'per_group'] as const) {
  const name = norm_groups === 'full' ? '-full' : '';
  const untied = shake(new Mamba2ForCausalLM(new Mamba2Config({ ...small, norm_groups })));
  await write(`untied${name}`, untied);
  await write(`untied${name}-float16-shards`, untied, { dtype: 'float16', max_shard_size: '5KB' });
  untied.dispose();
  const other = { tie_word_embeddings: true, time_step_limit: [0, Infinity] as [number, number], use_bias: false };
  const tied = shake(new Mamba2ForCausalLM(new Mamba2Config({ ...small, norm_groups, ...other })));
  await write(`tied${name}`, tied);
  tied.dispose();
}
