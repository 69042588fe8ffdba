/** save_pretrained and from_pretrained: what is written comes back, byte by byte, in one file or in shards. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, SaveError } from '../../../src/base/errors.js';
import { decodeFloat32, encodeFloat32, floatDtypeOf } from '../../../src/base/stored_dtypes.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import type { Mamba2ConfigFields } from '../../../src/models/mamba2/config.js';
import type { SaveOptions } from '../../../src/models/save.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import { rejection } from '../../support/errors.js';
import { readTensors } from '../../support/goldens.js';
import { lcg } from '../../support/random.js';
import { tinyModel } from '../../support/tiny_model.js';

/** Every file of a folder by name, as a digest. */
function digests(dir: string): Record<string, string> {
  const files = fs.readdirSync(dir).sort();
  return Object.fromEntries(
    files.map((file) => [
      file,
      createHash('sha256')
        .update(fs.readFileSync(path.join(dir, file)))
        .digest('hex'),
    ]),
  );
}

/** All tensors of a folder. */
function tensorsOf(dir: string): Map<string, { dtype: string; shape: number[]; data: ArrayLike<number> }> {
  const files = fs.readdirSync(dir).filter((file) => file.endsWith('.safetensors'));
  return new Map(files.flatMap((file) => [...readTensors(path.join(dir, file))]));
}

describe('save_pretrained', () => {
  let dir: string;
  let start: ReturnType<typeof tensorCount>;
  before(() => useBackend('cpu'));
  beforeEach(() => {
    start = tensorCount();
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'save-'));
  });
  afterEach(() => {
    fs.rmSync(dir, { recursive: true });
    expect(tensorCount(), 'tensors left').to.deep.equal(start);
  });
  const folder = (name: string): string => path.join(dir, name);

  it('twenty random models, types and shard sizes: save, load, save gives the same bytes', async () => {
    const random = lcg(71);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
    for (let round = 0; round < 20; round++) {
      const heads = pick([1, 2, 4]);
      const config: Partial<Mamba2ConfigFields> = {
        hidden_size: 4 * heads,
        num_heads: heads,
        head_dim: 8,
        n_groups: pick([1, heads]),
        state_size: pick([1, 3, 5]),
        conv_kernel: pick([1, 2, 4]),
        num_hidden_layers: pick([1, 2, 3]),
        vocab_size: pick([3, 10, 17]),
        use_bias: pick([true, false]),
        use_conv_bias: pick([true, false]),
        tie_word_embeddings: pick([true, false]),
        norm_groups: pick(['per_group', 'full']),
        time_step_limit: pick<[number, number]>([
          [0, Infinity],
          [0.25, 8],
        ]),
      };
      const options: SaveOptions = {
        dtype: pick(['float32', 'float16', 'bfloat16'] as const),
        max_shard_size: pick([200, 1500, '1GB']),
        legacy_json: pick([true, false]),
      };
      const what = `round ${round}: ${JSON.stringify({ config, options })}`;
      const { model, values } = tinyModel(config, round);
      await model.save_pretrained(folder('a'), options);
      const dtype = floatDtypeOf(options.dtype!)!;
      const saved = tensorsOf(folder('a'));
      expect([...saved.keys()].sort(), what).to.deep.equal(Object.keys(values).sort());
      for (const [name, value] of Object.entries(values)) {
        const tensor = saved.get(name)!;
        expect(tensor.shape, name).to.deep.equal(value.shape);
        expect(tensor.dtype, name).to.equal(dtype);
        // rounded to the stored type and not otherwise changed
        expectClose(
          tensor.data,
          decodeFloat32(encodeFloat32(Float32Array.from(value.data), dtype), dtype),
          0,
          `${what}, ${name}`,
        );
      }

      const untouched = await Mamba2ForCausalLM.from_pretrained(folder('a'));
      await untouched.save_pretrained(folder('b'), { ...options, dtype: undefined });
      expect(digests(folder('b')), what).to.deep.equal(digests(folder('a')));
      expect(untouched.config.to_dict().time_step_limit).to.deep.equal(config.time_step_limit);

      const used = await Mamba2ForCausalLM.from_pretrained(folder('a'));
      const { logits, cache } = used.forward({ input_ids: [[0, 1, 2]] });
      cache!.dispose();
      logits.dispose();
      await used.save_pretrained(folder('c'), options);
      expect(digests(folder('c')), what).to.deep.equal(digests(folder('a')));
      [model, untouched, used].forEach((m) => m.dispose());
      ['a', 'b', 'c'].forEach((name) => fs.rmSync(folder(name), { recursive: true }));
    }
  });

  it('writes shards no larger than asked for, unless one tensor is, and an index that names them all', async () => {
    const { model } = tinyModel();
    await model.save_pretrained(folder('a'), { max_shard_size: 2000 });
    const index = JSON.parse(fs.readFileSync(path.join(folder('a'), 'model.safetensors.index.json'), 'utf8')) as {
      metadata: { total_size: number };
      weight_map: Record<string, string>;
    };
    const files = fs.readdirSync(folder('a')).filter((file) => file.endsWith('.safetensors'));
    expect(files.length).to.be.greaterThan(2);
    expect([...new Set(Object.values(index.weight_map))].sort()).to.deep.equal(files.sort());
    expect(index.metadata.total_size).to.equal(4 * model.num_parameters());
    for (const file of files) {
      const inside = [...readTensors(path.join(folder('a'), file))];
      const bytes = inside.reduce((sum, [, { data }]) => sum + 4 * data.length, 0);
      expect(bytes <= 2000 || inside.length === 1, `${file}: ${bytes} bytes`).to.equal(true);
      for (const [name] of inside) expect(index.weight_map[name]).to.equal(file);
    }
    model.dispose();
  });

  it('into the folder it came from keeps the loaded model and replaces the files', async () => {
    const { model } = tinyModel();
    await model.save_pretrained(folder('a'), { max_shard_size: 2000 });
    const loaded = await Mamba2ForCausalLM.from_pretrained(folder('a'));
    await loaded.save_pretrained(folder('a'), { dtype: 'bfloat16' });
    expect(fs.readdirSync(folder('a')).filter((file) => /^model/.test(file))).to.deep.equal(['model.safetensors']);
    const again = await Mamba2ForCausalLM.from_pretrained(folder('a'));
    tf.tidy(() => {
      const run = (m: Mamba2ForCausalLM): tf.Tensor => m.forward({ input_ids: [[1, 2, 3]], use_cache: false }).logits;
      expectClose(run(loaded), run(model), 1e-6, 'the model in memory');
      expectClose(run(again), run(model), 0.1, 'the model on disk');
      expect(tf.max(tf.abs(tf.sub(run(again), run(model)))).dataSync()[0]).to.be.greaterThan(1e-4);
    });
    [model, loaded, again].forEach((m) => m.dispose());
  });

  it('keeps configuration keys that it does not know, and special ids', async () => {
    const { model } = tinyModel({ eos_token_id: [3, 4], pad_token_id: null, ...({ my_key: { a: [1] } } as object) });
    await model.save_pretrained(folder('a'));
    const loaded = await Mamba2ForCausalLM.from_pretrained(folder('a'));
    expect(loaded.config.to_dict()).to.deep.equal({ ...model.config.to_dict(), dtype: 'float32' });
    expect(loaded.config.extra).to.deep.include({ my_key: { a: [1] } });
    [model, loaded].forEach((m) => m.dispose());
  });

  it('lets options replace what the folder says', async () => {
    const { model } = tinyModel({ time_step_limit: [0, Infinity] });
    await model.save_pretrained(folder('a'));
    const loaded = await Mamba2ForCausalLM.from_pretrained(folder('a'), {
      config: { norm_groups: 'full', chunk_size: 2 },
    });
    expect(loaded.config).to.include({ norm_groups: 'full', chunk_size: 2 });
    const want = tinyModel({ time_step_limit: [0, Infinity], norm_groups: 'full' });
    tf.tidy(() => {
      expectClose(
        loaded.forward({ input_ids: [[1, 2, 3]], use_cache: false }).logits,
        want.oracle([1, 2, 3]).logits.data,
        1e-4,
      );
    });
    [model, loaded, want.model].forEach((m) => m.dispose());
  });

  it('refuses a type it cannot write, and a folder it cannot make, leaving nothing', async () => {
    const { model } = tinyModel();
    const error = await rejection(model.save_pretrained(folder('a'), { dtype: 'int4' as never }));
    expect(error).to.be.instanceOf(ArgumentError).with.property('message').that.contains('int4');
    expect(fs.existsSync(folder('a'))).to.equal(false);
    fs.writeFileSync(folder('file'), 'not a folder');
    expect(await rejection(model.save_pretrained(folder('file')))).to.be.instanceOf(SaveError);
    expect(fs.readFileSync(folder('file'), 'utf8')).to.equal('not a folder');
    model.dispose();
  });

  it('stopped half-way leaves an earlier save as it was', async () => {
    const { model } = tinyModel();
    await model.save_pretrained(folder('a'));
    const before = digests(folder('a'));
    const other = tinyModel({}, 5).model;
    const stop = new AbortController();
    const saving = other.save_pretrained(folder('a'), {
      signal: stop.signal,
      max_shard_size: 500,
      on_progress: () => stop.abort(),
    });
    expect((await rejection(saving)).name).to.equal('AbortError');
    expect(digests(folder('a'))).to.deep.equal(before);
    [model, other].forEach((m) => m.dispose());
  });
});
