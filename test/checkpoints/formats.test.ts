import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { decodeFloat32, encodeFloat32 } from '../../src/base/stored_dtypes.js';
import type { CheckpointSource } from '../../src/checkpoints/index.js';
import { openCheckpoint, validateCheckpoint } from '../../src/models/checkpoints.js';
import { Mamba2Error } from '../../src/base/errors.js';
import { goldenDir } from '../support/goldens.js';

const formats = goldenDir('formats');
const broken = JSON.parse(fs.readFileSync(path.join(formats, 'broken/broken.json'), 'utf8')) as Record<string, string>;

/** Loads as a model would: opens, validates, reads every tensor. */
async function load(dir: string): Promise<void> {
  const source = await openCheckpoint(dir);
  try {
    await validateCheckpoint(source);
    for (const name of source.tensors.keys()) await source.readFloat32(name);
  } finally {
    await source.close();
  }
}

async function parameters(source: CheckpointSource): Promise<Map<string, number[]>> {
  const out = new Map<string, number[]>();
  for (const name of source.tensors.keys()) out.set(name, [...(await source.readFloat32(name))]);
  return out;
}

describe('the formats of golden model folders', () => {
  for (const name of ['single', 'sharded', 'bf16', 'mixed-dtype', 'state-spaces', 'codestral-native', 'broken/ok'])
    it(`loads ${name}`, () => load(path.join(formats, name)));

  it('reads state-spaces under Hugging Face names, with a derived configuration', async () => {
    const single = await openCheckpoint(path.join(formats, 'single'));
    const pickled = await openCheckpoint(path.join(formats, 'state-spaces'));
    expect(pickled.format).to.equal('state-spaces');
    expect((await validateCheckpoint(pickled)).tied).to.equal(true);
    const sizes = (c: Record<string, unknown>): unknown[] =>
      ['hidden_size', 'num_heads', 'head_dim', 'state_size', 'n_groups', 'chunk_size', 'vocab_size', 'time_step_limit']
        .concat(['num_hidden_layers', 'expand', 'conv_kernel', 'tie_word_embeddings', 'use_bias', 'use_conv_bias'])
        .map((key) => c[key]);
    expect(sizes(pickled.config)).to.deep.equal(sizes(single.config));
    expect(pickled.config).to.include({ model_type: 'mamba2', bos_token_id: 0, eos_token_id: 0, pad_token_id: 0 });
    // the same model rounded to float16, D kept in float32
    const [exact, half] = [await parameters(single), await parameters(pickled)];
    half.delete('lm_head.weight');
    expect([...half.keys()].sort()).to.deep.equal([...exact.keys()].sort());
    for (const [name, values] of half) {
      const want = exact.get(name)!;
      const stored = name.endsWith('.D') ? 'F32' : 'F16';
      expect(pickled.tensors.get(name)!.dtype, name).to.equal(stored);
      const rounded = decodeFloat32(encodeFloat32(Float32Array.from(want), stored), stored);
      expect(values, name).to.deep.equal([...rounded]);
    }
    await single.close();
    await pickled.close();
  });

  it("reads Mistral's native folder, with mamba_ssm's defaults where params.json is silent", async () => {
    const source = await openCheckpoint(path.join(formats, 'codestral-native'));
    expect(source.format).to.equal('mistral');
    const params = JSON.parse(fs.readFileSync(path.join(formats, 'codestral-native/params.json'), 'utf8')) as {
      dim: number;
      n_groups: number;
      n_layers: number;
      vocab_size: number;
    };
    expect(source.config).to.include({
      hidden_size: params.dim,
      num_hidden_layers: params.n_layers,
      vocab_size: params.vocab_size,
      n_groups: params.n_groups,
      expand: 2,
      num_heads: (2 * params.dim) / 64,
      head_dim: 64,
      state_size: 128,
      conv_kernel: 4,
      chunk_size: 256,
    });
    expect(source.config).to.include({
      tie_word_embeddings: false,
      bos_token_id: 1,
      eos_token_id: 2,
      dtype: 'bfloat16',
    });
    expect(source.tensors.has('lm_head.weight')).to.equal(true);
    expect([...source.tensors.keys()].filter((name) => name.startsWith('model.'))).to.deep.equal([]);
    await source.close();
  });
});

describe('broken model folders', () => {
  it('are all described', () => {
    const folders = fs
      .readdirSync(path.join(formats, 'broken'))
      .filter((name) => !['ok', 'broken.json'].includes(name));
    expect(folders.sort()).to.deep.equal(Object.keys(broken).sort()).and.not.deep.equal([]);
  });
  for (const [name, what] of Object.entries(broken))
    it(`refuses ${name}: ${what}`, async () => {
      const dir = path.join(formats, 'broken', name);
      const error = (await load(dir).then(
        () => null,
        (e: unknown) => e,
      )) as Error | null;
      expect(error).to.be.instanceOf(Mamba2Error);
      const { message } = error as Error;
      if (name === 'head-mismatch') expect(message).to.include('num_heads');
      expect(message).to.include(dir);
      const tensor = /backbone\.\S+/.exec(what)?.[0];
      if (tensor) expect(message).to.include(tensor);
      const named = {
        'pickle-posix-system': 'posix.system',
        'pickle-eval': 'eval',
        'pickle-class': 'fractions.Fraction',
      };
      if (name in named) expect(message).to.include(named[name as keyof typeof named]);
    });
});
