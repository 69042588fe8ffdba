/**
 * Writes a checkpoint of random weights with the dimensions of a public Mamba-2 (spec A.4), tensor by tensor: speed
 * does not depend on the values. `npx tsx bench/random_checkpoint.ts 130m bfloat16 DIR`
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { DTYPE_BYTES, encodeFloat32, type FloatDtype, floatDtypeOf } from '../src/base/stored_dtypes.js';
import { saveCheckpoint } from '../src/checkpoints/save.js';
import type { OutTensor } from '../src/checkpoints/source.js';
import type { WeightInit } from '../src/layers/weights.js';
import { Mamba2Config } from '../src/models/mamba2/config.js';
import { Mamba2Network } from '../src/models/mamba2/network.js';
import type { Work } from './peers/peer.js';

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

/** The pool in a stored type, by scale. */
const pools = new Map<string, Uint8Array>();

/** Bytes of `size` values. Those of random ones are copied from the pool, which is encoded once. */
function bytesOf(init: WeightInit, size: number, dtype: FloatDtype): Uint8Array {
  switch (init.kind) {
    case 'zeros':
      return encodeFloat32(new Float32Array(size), dtype);
    case 'ones':
      return encodeFloat32(new Float32Array(size).fill(1), dtype);
    case 'values':
      return encodeFloat32(init.values(size), dtype);
    case 'normal':
    case 'uniform': {
      const scale = init.kind === 'normal' ? init.std : init.high / 2;
      const key = `${scale} ${dtype}`;
      const pool =
        pools.get(key) ??
        encodeFloat32(
          normal.map((value) => value * scale),
          dtype,
        );
      pools.set(key, pool);
      const width = DTYPE_BYTES[dtype];
      const out = new Uint8Array(size * width);
      for (let begin = 0, k = 0; begin < size; begin += POOL, k = (k * 31 + 17) % 4096)
        out.set(pool.subarray(k * width, (k + Math.min(POOL, size - begin)) * width), begin * width);
      return out;
    }
  }
}

/** Writes config.json and random weights. */
export async function writeRandomCheckpoint(dir: string, config: Mamba2Config, dtype: FloatDtype): Promise<void> {
  const tensors: OutTensor[] = new Mamba2Network(config).weightSpecs().map(({ name, shape, init }) => {
    const size = shape.reduce((a, b) => a * b, 1);
    return { name, shape, dtype, data: () => bytesOf(init, size, dtype) };
  });
  await saveCheckpoint(dir, { ...config.to_dict(), dtype: dtype === 'BF16' ? 'bfloat16' : 'float32' }, tensors);
}

/** Writes the checkpoint of some work unless it is there. @returns whether it was written */
export async function provideCheckpoint({
  checkpoint,
  model,
  dtype,
}: Pick<Work, 'checkpoint' | 'model' | 'dtype'>): Promise<boolean> {
  if (fs.existsSync(path.join(checkpoint, 'config.json'))) return false;
  process.stderr.write(`writing random weights into ${checkpoint}\n`);
  await writeRandomCheckpoint(checkpoint, publicConfig(model), floatDtypeOf(dtype)!);
  return true;
}

if (process.argv[1]?.endsWith('random_checkpoint.ts')) {
  const [size = '130m', dtype = 'bfloat16', dir = `/tmp/mamba2-${size}-${dtype}`] = process.argv.slice(2);
  await writeRandomCheckpoint(dir, publicConfig(size), floatDtypeOf(dtype)!);
  console.log(dir);
}
