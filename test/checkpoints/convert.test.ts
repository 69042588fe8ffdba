import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { saveCheckpoint, writeSafetensors } from '../../src/checkpoints/index.js';
import {
  convertCheckpoint,
  inspectCheckpoint,
  openCheckpoint,
  validateCheckpoint,
  verifyConversion,
} from '../../src/models/checkpoints.js';
import { decodeFloat32, encodeFloat32 } from '../../src/base/stored_dtypes.js';
import { ArgumentError, CheckpointError } from '../../src/base/errors.js';
import { goldenDir, readTensors } from '../support/goldens.js';
import { randomTensors, TINY_CONFIG, zeros } from '../support/checkpoint.js';

const formats = (name: string): string => goldenDir(`formats/${name}`);
const GOOD = ['single', 'sharded', 'bf16', 'mixed-dtype', 'state-spaces', 'codestral-native'];

describe('conversion to the Hugging Face layout', () => {
  let dir = '';
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'convert-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

  for (const name of GOOD)
    it(`keeps every stored byte of ${name}`, async () => {
      const source = await openCheckpoint(formats(name));
      const report = await convertCheckpoint(source, path.join(dir, 'out'), { max_shard_size: '30KB' });
      const copy = await openCheckpoint(path.join(dir, 'out'));
      expect(copy.format).to.equal('hf');
      const { tied } = await validateCheckpoint(copy);
      expect(copy.tensors.has('lm_head.weight')).to.equal(!tied);
      expect(report.tensors).to.equal(copy.tensors.size);
      for (const [key, { dtype, shape }] of copy.tensors) {
        expect(source.tensors.get(key)).to.deep.include({ dtype, shape });
        expect(Buffer.compare(await copy.readBytes(key), await source.readBytes(key)), key).to.equal(0);
      }
      expect(await verifyConversion(source, copy)).to.deep.equal({ tensors: report.tensors, differences: [] });
      await source.close();
      await copy.close();
    });

  for (const dtype of ['F32', 'BF16', 'F16'] as const)
    it(`rounds to ${dtype}, the recurrence's parameters excepted`, async () => {
      const source = await openCheckpoint(formats('mixed-dtype'));
      await convertCheckpoint(source, dir, { dtype });
      const copy = await openCheckpoint(dir);
      expect(copy.config.dtype).to.equal({ F32: 'float32', BF16: 'bfloat16', F16: 'float16' }[dtype]);
      for (const [key, info] of copy.tensors) {
        const stored = source.tensors.get(key)!.dtype;
        const want = /\.(A_log|D|dt_bias)$/.test(key) && stored === 'F32' ? 'F32' : dtype;
        expect(info.dtype, key).to.equal(want);
        const values = decodeFloat32(encodeFloat32(await source.readFloat32(key), want), want);
        expect(await copy.readFloat32(key), key).to.deep.equal(values);
      }
      expect((await verifyConversion(source, copy)).differences).to.deep.equal([]);
      await source.close();
      await copy.close();
    });

  it('brings the tokenizer along and writes Infinity as asked', async () => {
    const input = path.join(dir, 'in');
    await saveCheckpoint(input, TINY_CONFIG, randomTensors(TINY_CONFIG), {
      extra_files: { 'tokenizer.json': '{"a":1}', 'notes.txt': 'x' },
    });
    const source = await openCheckpoint(input);
    await convertCheckpoint(source, path.join(dir, 'out'), { legacy_json: true });
    expect(fs.readdirSync(path.join(dir, 'out')).sort()).to.deep.equal([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
    expect(fs.readFileSync(path.join(dir, 'out/config.json'), 'utf8')).to.match(/ Infinity\b/);
    await source.close();
  });

  it('refuses values beyond float16, a checkpoint that does not fit, and its own folder; leaves nothing', async () => {
    const input = path.join(dir, 'in');
    const out = path.join(dir, 'out');
    const big = zeros('backbone.norm_f.weight', [8]);
    new Float32Array((big.data() as Uint8Array).buffer)[3] = 70000;
    const tensors = randomTensors(TINY_CONFIG).map((t) => (t.name === big.name ? big : t));
    await saveCheckpoint(input, TINY_CONFIG, tensors);
    const source = await openCheckpoint(input);
    const overflow = await convertCheckpoint(source, out, { dtype: 'F16' }).catch((e: unknown) => e);
    expect(overflow).to.be.instanceOf(CheckpointError);
    expect((overflow as Error).message).to.match(/norm_f\.weight holds 70000.*bfloat16/);
    expect(fs.readdirSync(out)).to.deep.equal([]);
    await convertCheckpoint(source, out, { dtype: 'BF16' });
    const same = await convertCheckpoint(source, path.join(dir, 'out/../in')).catch((e: unknown) => e);
    expect(same).to.be.instanceOf(ArgumentError);
    await source.close();

    await saveCheckpoint(input, { ...TINY_CONFIG, num_hidden_layers: 3 }, tensors);
    const short = await openCheckpoint(input);
    const missing = await convertCheckpoint(short, path.join(dir, 'other')).catch((e: unknown) => e);
    expect((missing as Error).message).to.match(/layers\.2\.norm\.weight is missing/);
    expect(fs.existsSync(path.join(dir, 'other'))).to.equal(false);
    await short.close();
  });

  it('leaves no file that looks finished when interrupted', async () => {
    const source = await openCheckpoint(formats('single'));
    const stop = new AbortController();
    const onProgress = ({ written, total }: { written: number; total: number }): void => {
      if (written > total / 3) stop.abort();
    };
    const error = await convertCheckpoint(source, dir, {
      signal: stop.signal,
      max_shard_size: '9KB',
      on_progress: onProgress,
    }).catch((e: unknown) => e);
    expect(error).to.have.property('name', 'AbortError');
    expect(fs.readdirSync(dir)).to.deep.equal([]);
    await source.close();
  });

  it('notices every kind of difference when verifying', async () => {
    const source = await openCheckpoint(formats('single'));
    const changed = path.join(dir, 'changed');
    await convertCheckpoint(source, changed);
    const names = [...source.tensors.keys()];
    const copy = await openCheckpoint(changed);
    const tensors = await Promise.all(
      [...copy.tensors.values()].map(async ({ name, dtype, shape }) => {
        const bytes = await copy.readBytes(name);
        if (name === names[4]) bytes[8]! ^= 1;
        return {
          name: name === names[7] ? 'other' : name,
          dtype,
          shape: name === names[2] ? [...shape, 1] : shape,
          data: () => bytes,
        };
      }),
    );
    await copy.close();
    await writeSafetensors(path.join(changed, 'model.safetensors'), tensors);
    const again = await openCheckpoint(changed);
    const { differences } = await verifyConversion(source, again);
    expect(differences).to.have.length(4);
    const text = differences.join('\n');
    expect(text).to.include(`${names[4]} differs from element 2 on`);
    expect(text).to.include(`${names[7]} is not in ${changed}`);
    expect(text).to.include(`other is in ${changed} only`);
    expect(text).to.match(new RegExp(`${names[2]!.replaceAll('.', '\\.')} has shape`));
    await again.close();
    await source.close();
  });
});

describe('inspection', () => {
  it('describes every good folder', async () => {
    const read = (file: string): Record<string, number> =>
      JSON.parse(fs.readFileSync(formats(file), 'utf8')) as Record<string, number>;
    const elements = (file: string): number =>
      [...readTensors(formats(file)).values()].reduce((sum, { data }) => sum + data.length, 0);
    const [config, params] = [read('single/config.json'), read('codestral-native/params.json')];
    for (const name of GOOD) {
      const found = await inspectCheckpoint(formats(name));
      expect(found.problems, name).to.deep.equal([]);
      const native = name === 'codestral-native';
      const weights = native ? 'codestral-native/consolidated.safetensors' : 'single/model.safetensors';
      expect(found.parameters, name).to.equal(elements(weights));
      expect(found.dimensions, name).to.include({ layers: native ? params.n_layers : config.num_hidden_layers });
    }
    const mixed = await inspectCheckpoint(formats('mixed-dtype'));
    expect(Object.keys(mixed.dtypes).sort()).to.deep.equal(['BF16', 'F16', 'F32']);
    const shards = fs.readdirSync(formats('sharded')).filter((file) => file.endsWith('.safetensors'));
    expect((await inspectCheckpoint(formats('sharded'))).files).to.have.length(shards.length);
  });

  it('says what is wrong with every broken one', async () => {
    const broken = formats('broken');
    for (const name of fs.readdirSync(broken)) {
      if (name === 'ok' || name === 'broken.json') continue;
      const { problems } = await inspectCheckpoint(path.join(broken, name));
      expect(problems, name).to.not.deep.equal([]);
    }
    const missing = await inspectCheckpoint(path.join(broken, 'missing-tensor'));
    expect(missing.problems.join()).to.match(/A_log is missing/);
    const left = readTensors(path.join(broken, 'missing-tensor/model.safetensors'));
    expect(missing.tensors.map(({ name }) => name).sort()).to.deep.equal([...left.keys()].sort());
  });

  it('describes a single file, and a folder that has no configuration', async () => {
    const file = await inspectCheckpoint(path.join(formats('state-spaces'), 'pytorch_model.bin'));
    expect(file.tensors.map(({ name }) => name)).to.include('backbone.embedding.weight');
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'inspect-'));
    try {
      fs.copyFileSync(path.join(formats('single'), 'model.safetensors'), path.join(dir, 'model.safetensors'));
      const bare = await inspectCheckpoint(dir);
      expect(bare.problems.join()).to.match(/neither config\.json/);
      expect(bare.tensors.length).to.equal(readTensors(formats('single/model.safetensors')).size);
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
    const gone = await inspectCheckpoint(dir).catch((e: unknown) => e);
    expect(gone).to.be.instanceOf(CheckpointError);
  });
});
