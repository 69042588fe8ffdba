/**
 * Writes a checkpoint of random weights with the dimensions of a public Mamba-2 (spec A.4), tensor by tensor: speed
 * does not depend on the values. `npx tsx bench/random_checkpoint.ts 130m bfloat16 DIR`
 */
import { encodeFloat32, type FloatDtype, floatDtypeOf } from '../src/base/stored_dtypes.js';
import { saveCheckpoint } from '../src/checkpoints/save.js';
import type { OutTensor } from '../src/checkpoints/source.js';
import type { WeightInit } from '../src/layers/weights.js';
import { Mamba2Config } from '../src/models/mamba2/config.js';
import { Mamba2Network } from '../src/models/mamba2/network.js';

/** hidden, layers, groups, vocabulary, tied head. */
const SIZES: Record<string, [number, number, number, number, boolean]> = {
  tiny: [64, 2, 1, 512, true],
  '130m-2-layers': [768, 2, 1, 50288, true],
  '130m': [768, 24, 1, 50288, true],
  '370m': [1024, 48, 1, 50288, true],
  '780m': [1536, 48, 1, 50288, true],
  '1.3b': [2048, 48, 1, 50288, true],
  '2.7b': [2560, 64, 1, 50288, true],
  '7b': [4096, 64, 8, 32768, false],
};

/** The configuration of a public model's dimensions, or of fewer layers of them. */
export function publicConfig(size: string, layers?: number): Mamba2Config {
  const found = SIZES[size];
  if (!found) throw new Error(`unknown size '${size}', expected one of ${Object.keys(SIZES).join(', ')}`);
  const [hidden_size, num_hidden_layers, n_groups, vocab_size, tie_word_embeddings] = found;
  return new Mamba2Config({
    hidden_size,
    num_hidden_layers: layers ?? num_hidden_layers,
    n_groups,
    vocab_size,
    tie_word_embeddings,
    head_dim: 64,
    num_heads: (2 * hidden_size) / 64,
    state_size: 128,
    initializer_range: 0.02,
    bos_token_id: 0,
    eos_token_id: 0,
    pad_token_id: 0,
  });
}

/** A pool of normal numbers, read at shifting offsets: fresh ones for 2.7 billion weights would take minutes. */
const POOL = 1 << 20;
const normal = new Float32Array(POOL + 4096);
let state = 12345;
const uniform = (): number => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) + 0.5) / 2 ** 32;
for (let i = 0; i < normal.length; i++)
  normal[i] = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());

function values(init: WeightInit, size: number): Float32Array {
  const out = new Float32Array(size);
  switch (init.kind) {
    case 'zeros':
      return out;
    case 'ones':
      return out.fill(1);
    case 'values':
      return init.values(size);
    case 'normal':
    case 'uniform': {
      const scale = init.kind === 'normal' ? init.std : init.high / 2;
      for (let begin = 0, k = 0; begin < size; begin += POOL, k = (k * 31 + 17) % 4096) {
        const part = normal.subarray(k, k + Math.min(POOL, size - begin));
        for (let i = 0; i < part.length; i++) out[begin + i] = part[i]! * scale;
      }
      return out;
    }
  }
}

/** Writes config.json and random weights. */
export async function writeRandomCheckpoint(dir: string, config: Mamba2Config, dtype: FloatDtype): Promise<void> {
  const tensors: OutTensor[] = new Mamba2Network(config).weightSpecs().map(({ name, shape, init }) => {
    const size = shape.reduce((a, b) => a * b, 1);
    return { name, shape, dtype, data: () => encodeFloat32(values(init, size), dtype) };
  });
  await saveCheckpoint(dir, { ...config.to_dict(), dtype: dtype === 'BF16' ? 'bfloat16' : 'float32' }, tensors);
}

if (process.argv[1]?.endsWith('random_checkpoint.ts')) {
  const [size = '130m', dtype = 'bfloat16', dir = `/tmp/mamba2-${size}-${dtype}`] = process.argv.slice(2);
  await writeRandomCheckpoint(dir, publicConfig(size), floatDtypeOf(dtype)!);
  console.log(dir);
}
