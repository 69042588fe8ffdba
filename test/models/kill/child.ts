/** Saves one thing over the other for ever, until it is killed: `child.ts KIND FOLDER SOURCES`. */
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { Mamba2ForCausalLM, quantizeCheckpoint } from '../../../src/models/mamba2/index.js';
import { Int8WeightOnlyConfig } from '../../../src/quant/index.js';

const [kind, folder, ...sources] = process.argv.slice(2) as [string, string, ...string[]];
await tf.setBackend('cpu');
const models = await Promise.all(sources.map((dir) => Mamba2ForCausalLM.from_pretrained(dir, { engine: 'eager' })));
const states = kind === 'state' ? await Promise.all(models.map((model) => model.prefill([[1, 2, 3]]))) : [];

async function save(i: number): Promise<void> {
  if (kind === 'state') await states[i]!.save(path.join(folder, 'state.safetensors'), { which: String(i) });
  else if (kind === 'quantize') await quantizeCheckpoint(sources[i]!, folder, new Int8WeightOnlyConfig());
  else await models[i]!.save_pretrained(folder, kind === 'shards' ? { max_shard_size: 20_000 } : {});
}

await save(0);
process.stdout.write('saved\n');
for (let i = 1; ; i = 1 - i) await save(i);
