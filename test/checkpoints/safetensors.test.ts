import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import {
  SafetensorsFile,
  saveCheckpoint,
  writeSafetensors,
  type CheckpointSource,
  type OutTensor,
} from '../../src/checkpoints/index.js';
import { openCheckpoint, validateCheckpoint } from '../../src/models/checkpoints.js';
import { ArgumentError, CheckpointError, SaveError } from '../../src/base/errors.js';
import { rejection } from '../support/errors.js';
import { goldenDir } from '../support/goldens.js';

const formats = (name: string): string => goldenDir(`formats/${name}`);

/** Every tensor of a source, as bytes. */
async function everything(source: CheckpointSource): Promise<Map<string, string>> {
  const out = new Map<string, string>();
  for (const [name, { dtype, shape }] of [...source.tensors].sort())
    out.set(name, `${dtype} ${shape.join()} ${Buffer.from(await source.readBytes(name)).toString('base64')}`);
  return out;
}

function outTensors(source: CheckpointSource): OutTensor[] {
  return [...source.tensors.values()].map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape,
    data: () => source.readBytes(name),
  }));
}

describe('safetensors', () => {
  let dir = '';
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'checkpoint-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

  it('opens one file and shards to the same parameters', async () => {
    const single = await openCheckpoint(formats('single'));
    const sharded = await openCheckpoint(formats('sharded'));
    expect(await everything(sharded)).to.deep.equal(await everything(single));
    expect(single.config.time_step_limit).to.deep.equal([0, Infinity]);
    expect(sharded.config.time_step_limit).to.deep.equal([0, Infinity]);
    const shards = fs.readdirSync(formats('sharded')).filter((file) => file.endsWith('.safetensors'));
    expect(shards.length).to.be.greaterThan(1);
    const files = new Set([...sharded.tensors.values()].map(({ file }) => path.basename(file)));
    expect([...files].sort()).to.deep.equal(shards.sort());
    expect((await validateCheckpoint(single)).tied).to.equal(true);
    await single.close();
    await sharded.close();
  });

  it('reads the same bytes whole, blocking, and in slices', async () => {
    const source = await openCheckpoint(formats('mixed-dtype'));
    for (const name of source.tensors.keys()) {
      const whole = await source.readBytes(name);
      expect(whole.byteOffset % 8).to.equal(0);
      expect(Buffer.compare(whole, source.readBytesSync(name))).to.equal(0);
      const pieces: Uint8Array[] = [];
      for await (const piece of source.readSlices(name, 24)) pieces.push(piece);
      expect(Buffer.compare(whole, Buffer.concat(pieces))).to.equal(0);
    }
    const dtypes = new Set([...source.tensors.values()].map(({ dtype }) => dtype));
    expect([...dtypes].sort()).to.deep.equal(['BF16', 'F16', 'F32']);
    await source.close();
  });

  it('decodes bfloat16 to the float32 parameters rounded', async () => {
    const exact = await openCheckpoint(formats('single'));
    const rounded = await openCheckpoint(formats('bf16'));
    for (const name of exact.tensors.keys()) {
      const a = await exact.readFloat32(name);
      const b = await rounded.readFloat32(name);
      expect(b.length).to.equal(a.length);
      for (const [i, x] of a.entries()) expect(Math.abs(b[i]! - x), name).to.be.at.most(Math.abs(x) * 2 ** -8);
    }
    await exact.close();
    await rounded.close();
  });

  for (const parts of [1, 2])
    it(`writes what it read, byte for byte (${parts === 1 ? 'one file' : 'shards'})`, async () => {
      const source = await openCheckpoint(formats('mixed-dtype'));
      const sizes = [...source.tensors.values()].map(({ bytes }) => bytes);
      const half = Math.ceil(sizes.reduce((a, b) => a + b) / 2);
      const max_shard_size = parts === 1 ? '5GB' : half;
      const progress: number[] = [];
      await saveCheckpoint(dir, source.config, outTensors(source), {
        max_shard_size,
        extra_files: { 'generation_config.json': '{}' },
        on_progress: ({ written, total }) => progress.push(written / total),
      });
      const again = await openCheckpoint(dir);
      expect(await everything(again)).to.deep.equal(await everything(source));
      expect(again.config).to.deep.equal(source.config);
      expect(progress.at(-1)).to.equal(1);
      const files = fs.readdirSync(dir).sort();
      if (parts === 1) {
        expect(files).to.deep.equal(['config.json', 'generation_config.json', 'model.safetensors']);
        // the same layout as the Python library's, to the byte
        const name = 'model.safetensors';
        expect(
          Buffer.compare(
            fs.readFileSync(path.join(dir, name)),
            fs.readFileSync(path.join(formats('mixed-dtype'), name)),
          ),
        ).to.equal(0);
      } else {
        const shards = files.filter((file) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(file));
        expect(shards.length).to.be.greaterThan(1);
        expect(files).to.deep.equal(
          ['config.json', 'generation_config.json', ...shards, 'model.safetensors.index.json'].sort(),
        );
        // no more than the limit in each, but for a tensor that is larger by itself
        for (const file of shards) {
          const inside = [...again.tensors.values()].filter((tensor) => path.basename(tensor.file) === file);
          const bytes = inside.reduce((sum, tensor) => sum + tensor.bytes, 0);
          if (inside.length > 1) expect(bytes, file).to.be.at.most(half);
        }
      }
      await source.close();
      await again.close();
    });

  it('replaces the weight files of an earlier save', async () => {
    const source = await openCheckpoint(formats('single'));
    await saveCheckpoint(dir, source.config, outTensors(source), { max_shard_size: '20KB' });
    await saveCheckpoint(dir, source.config, outTensors(source));
    expect(fs.readdirSync(dir).sort()).to.deep.equal(['config.json', 'model.safetensors']);
    await source.close();
  });

  it('leaves nothing behind when a tensor fails, when it is the wrong size, and when interrupted', async () => {
    const source = await openCheckpoint(formats('single'));
    const good = outTensors(source);
    const last = good.at(-1)!;
    const cases: [OutTensor, new (message: string) => Error, RegExp][] = [
      [{ ...last, data: () => Promise.reject(new CheckpointError('gone')) }, CheckpointError, /gone/],
      [{ ...last, data: () => new Uint8Array(3) }, SaveError, /gave 3 bytes/],
      [{ ...last, name: good[0]!.name }, SaveError, /same name/],
    ];
    for (const [bad, kind, message] of cases) {
      const error = await saveCheckpoint(dir, source.config, [...good.slice(0, -1), bad]).catch((e: unknown) => e);
      expect(error).to.be.instanceOf(kind);
      expect((error as Error).message).to.match(message);
      expect(fs.readdirSync(dir)).to.deep.equal([]);
    }
    const stop = new AbortController();
    const stopped = await saveCheckpoint(dir, source.config, good, {
      signal: stop.signal,
      max_shard_size: '20KB',
      on_progress: ({ written, total }) => written > total / 2 && stop.abort(),
    }).catch((e: unknown) => e);
    expect(stopped).to.have.property('name', 'AbortError');
    expect(fs.readdirSync(dir)).to.deep.equal([]);
    await source.close();
  });

  it('keeps an earlier save whole when a later one fails', async () => {
    const source = await openCheckpoint(formats('single'));
    await saveCheckpoint(dir, source.config, outTensors(source));
    const before = fs.readFileSync(path.join(dir, 'model.safetensors'));
    const broken = outTensors(source).map((t, i) => (i === 9 ? { ...t, data: () => new Uint8Array(1) } : t));
    expect(await rejection(saveCheckpoint(dir, source.config, broken))).to.be.instanceOf(Error);
    expect(Buffer.compare(before, fs.readFileSync(path.join(dir, 'model.safetensors')))).to.equal(0);
    expect(fs.readdirSync(dir).sort()).to.deep.equal(['config.json', 'model.safetensors']);
    await source.close();
  });

  it('refuses a folder that cannot be written and a size that is none', async () => {
    fs.writeFileSync(path.join(dir, 'file'), '');
    const inFile = await saveCheckpoint(path.join(dir, 'file'), {}, []).catch((e: unknown) => e);
    expect(inFile).to.be.instanceOf(SaveError);
    for (const max_shard_size of ['5 bananas', 0, -3, 'GB']) {
      const error = await saveCheckpoint(dir, {}, [], { max_shard_size }).catch((e: unknown) => e);
      expect(error).to.be.instanceOf(ArgumentError);
    }
  });

  it('writes scalars, empty tensors, every dtype and odd names', async () => {
    const file = path.join(dir, 'x.safetensors');
    const tensor = (name: string, dtype: OutTensor['dtype'], shape: number[], bytes: number): OutTensor => ({
      name,
      dtype,
      shape,
      data: () => new Uint8Array(bytes).fill(name.length),
    });
    const tensors = [
      tensor('scalar', 'F64', [], 8),
      tensor('none', 'F32', [0, 7], 0),
      tensor('bool', 'BOOL', [3], 3),
      tensor('7', 'I16', [2], 4),
      tensor('"quoted": {\\', 'BF16', [1, 3], 6),
      tensor('__proto__', 'I64', [1], 8),
    ];
    await writeSafetensors(file, tensors, { metadata: { format: 'pt', note: 'ü' } });
    const opened = await SafetensorsFile.open(file);
    expect(opened.metadata).to.deep.equal({ format: 'pt', note: 'ü' });
    expect([...opened.entries.keys()].sort()).to.deep.equal(tensors.map(({ name }) => name).sort());
    for (const { name, dtype, shape, data } of tensors) {
      expect(opened.entries.get(name)).to.deep.include({ dtype, shape });
      expect(Buffer.compare(await opened.read(name), await data())).to.equal(0);
    }
    await opened.close();
  });

  it('refuses a name that is listed twice, and metadata that is not text', async () => {
    const write = (json: string, data: number): string => {
      const file = path.join(dir, 'h.safetensors');
      const head = Buffer.alloc(8);
      head.writeBigUInt64LE(BigInt(Buffer.byteLength(json)));
      fs.writeFileSync(file, Buffer.concat([head, Buffer.from(json), Buffer.alloc(data)]));
      return file;
    };
    const entry = '{"dtype":"U8","shape":[2],"data_offsets":[0,2]}';
    for (const [json, data, message] of [
      [`{"a":${entry},"a":${entry}}`, 2, /twice/],
      ['{"__metadata__":{"a":1}}', 0, /__metadata__/],
      ['{"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', 3, /tensor a: its data leaves a gap/],
      ['[]', 0, /not a JSON object/],
    ] as const) {
      const error = await SafetensorsFile.open(write(json, data)).catch((e: unknown) => e);
      expect(error).to.be.instanceOf(CheckpointError);
      expect((error as Error).message).to.match(message);
    }
  });
});
