import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { BytesInMemory } from '../../src/base/files.js';
import { openTorchContainer, SafetensorsFile, torchContainer } from '../../src/checkpoints/index.js';
import { unpickle } from '../../src/checkpoints/pickle.js';
import { crc32, readZipDirectory } from '../../src/checkpoints/zip.js';
import { CheckpointError } from '../../src/base/errors.js';
import { fixture } from '../support/goldens.js';
import { zipFile } from '../support/zip_file.js';

const fixtures = fileURLToPath(new URL('../fixtures/torch/', import.meta.url));

async function failure(promise: Promise<unknown>): Promise<CheckpointError> {
  const error = await promise.then(
    () => null,
    (e: unknown) => e,
  );
  expect(error).to.be.instanceOf(CheckpointError);
  return error as CheckpointError;
}

/** The entries of a torch file, by name. */
async function entriesOf(bytes: Uint8Array): Promise<Record<string, Uint8Array>> {
  const file = new BytesInMemory('x.bin', bytes);
  const out: Record<string, Uint8Array> = {};
  for (const [name, { begin, end }] of await readZipDirectory(file)) out[name] = await file.read(begin, end - begin);
  return out;
}

describe('files of torch.save', () => {
  for (const name of ['views', 'wrapped', 'parameters', 'no-checksums'])
    it(`reads ${name}.bin to the tensors that torch has`, async () => {
      const container = await openTorchContainer(path.join(fixtures, `${name}.bin`));
      const expected = await SafetensorsFile.open(path.join(fixtures, `${name}.safetensors`));
      expect([...container.tensors.keys()].sort()).to.deep.equal([...expected.entries.keys()].sort());
      for (const [key, tensor] of container.tensors) {
        const want = await expected.read(key);
        expect(tensor.dtype, key).to.equal(expected.entries.get(key)!.dtype);
        expect(tensor.shape, key).to.deep.equal(expected.entries.get(key)!.shape);
        expect(tensor.bytes, key).to.equal(want.byteLength);
        expect(Buffer.compare(await tensor.read(), want), key).to.equal(0);
        expect(Buffer.compare(tensor.readSync(), want), key).to.equal(0);
        const slices: Uint8Array[] = [];
        for await (const slice of tensor.slices(16)) slices.push(slice);
        expect(Buffer.compare(Buffer.concat(slices), want), key).to.equal(0);
      }
      await container.close();
      await expected.close();
    });

  it('refuses the format of before torch 1.6, whole modules, and repeated elements, saying what to do', async () => {
    const legacy = await failure(openTorchContainer(path.join(fixtures, 'legacy.bin')));
    expect(legacy.message).to.match(/before 1\.6.*current torch/);
    const module = await failure(openTorchContainer(path.join(fixtures, 'module.bin')));
    expect(module.message).to.match(/torch\.nn\.modules\.linear\.Linear, which is not allowed.*state_dict/s);
    const expanded = await failure(openTorchContainer(path.join(fixtures, 'expanded.bin')));
    expect(expanded.message).to.match(/tensor x: shape \[1000000, 2\] repeats/);
  });

  it('reads zip64 archives and archives with a comment', async () => {
    const file = path.join(fixture('goldens/formats/state-spaces'), 'pytorch_model.bin');
    const plain = await openTorchContainer(file);
    const entries = await entriesOf(new Uint8Array(fs.readFileSync(file)));
    for (const options of [{ zip64: true }, { comment: 'PK\x05\x06 in a comment' }]) {
      const again = await torchContainer(new BytesInMemory('again.bin', zipFile(entries, options)));
      expect([...again.tensors.keys()]).to.deep.equal([...plain.tensors.keys()]);
      for (const [name, tensor] of again.tensors)
        expect(Buffer.compare(await tensor.read(), await plain.tensors.get(name)!.read()), name).to.equal(0);
    }
    await plain.close();
  });

  it('refuses compressed entries, a byte order that is not little, and missing or two pickles', async () => {
    const entries = await entriesOf(new Uint8Array(fs.readFileSync(path.join(fixtures, 'parameters.bin'))));
    const open = (parts: Record<string, Uint8Array>, options = {}): Promise<unknown> =>
      torchContainer(new BytesInMemory('x.bin', zipFile(parts, options)));
    expect((await failure(open(entries, { method: 8 }))).message).to.match(/compressed/);
    const text = (value: string): Uint8Array => new TextEncoder().encode(value);
    expect((await failure(open({ ...entries, 'parameters/byteorder': text('big') }))).message).to.match(/byte order/);
    const { 'parameters/data.pkl': pickle, ...rest } = entries;
    expect((await failure(open(rest))).message).to.match(/0 entries data\.pkl/);
    expect((await failure(open({ ...entries, 'other/data.pkl': pickle! }))).message).to.match(/2 entries data\.pkl/);
  });

  it('notices a changed byte by its checksum', async () => {
    const file = path.join(fixture('goldens/formats/state-spaces'), 'pytorch_model.bin');
    const bytes = new Uint8Array(fs.readFileSync(file));
    const entry = (await readZipDirectory(new BytesInMemory(file, bytes))).get('pytorch_model/data/6')!;
    bytes[entry.begin + 100]! ^= 1;
    const container = await torchContainer(new BytesInMemory(file, bytes));
    const name = 'backbone.layers.0.mixer.in_proj.weight';
    expect((await failure(container.tensors.get(name)!.read())).message).to.match(
      /data\/6 does not match its checksum/,
    );
    expect(() => container.tensors.get(name)!.readSync()).to.throw(CheckpointError, /checksum/);
    await container.tensors.get('backbone.norm_f.weight')!.read();
  });

  it('computes CRC-32 in parts', () => {
    const bytes = new TextEncoder().encode('123456789');
    expect(crc32(bytes)).to.equal(0xcbf43926);
    expect(crc32(bytes.subarray(4), crc32(bytes.subarray(0, 4)))).to.equal(0xcbf43926);
  });
});

describe('the restricted unpickler', () => {
  const pickle = (...parts: (number | string)[]): Uint8Array =>
    new Uint8Array(
      Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part)))),
    );
  const refused = (bytes: Uint8Array, message: RegExp): void =>
    expect(() => unpickle(bytes, 'x.bin')).to.throw(CheckpointError, message) && undefined;

  it('reads plain data', () => {
    const dict = unpickle(pickle(0x80, 2, '}(', 'X\x01\0\0\0a', 'K\x05', 'X\x01\0\0\0b', ']', 'N', 'a', 'u.'), 'x.bin');
    expect(dict).to.deep.equal(new Map<string, unknown>([['a', 5], ['b', [null]]])); // prettier-ignore
    expect(unpickle(pickle(0x80, 2, 0x8a, 2, 0xff, 0xff, '.'), 'x.bin')).to.equal(-1);
    expect(unpickle(pickle(0x80, 2, 'J', 0xfe, 0xff, 0xff, 0xff, '.'), 'x.bin')).to.equal(-2);
    expect(unpickle(pickle(0x80, 2, 0x8a, 8, '\0\0\0\0\0\0\0', 0x40, '.'), 'x.bin')).to.equal(2n ** 62n);
  });

  it('refuses every way of calling something', () => {
    refused(pickle(0x80, 2, 'cos\nsystem\n', 'X\x04\0\0\0true', 0x85, 'R.'), /os\.system, which is not allowed/);
    refused(pickle(0x80, 2, '(X\x04\0\0\0true', 'ios\nsystem\n.'), /opcode 0x69 /);
    refused(pickle(0x80, 2, '(cos\nsystem\n', 'o.'), /os\.system/);
    refused(pickle(0x80, 4, 0x8c, 2, 'os', 0x8c, 6, 'system', 0x93, '.'), /os\.system/);
    refused(pickle(0x80, 2, 'ccollections\nOrderedDict\n', ')', 0x81, '.'), /opcode 0x81/);
    refused(pickle(0x80, 2, 0x82, 1, '.'), /opcode 0x82/);
    refused(pickle(0x80, 2, 'ctorch\nHalfStorage\n', ')R.'), /a call of torch\.HalfStorage/);
  });

  it('refuses a stack that does not add up', () => {
    for (const [bytes, message] of [
      [pickle(0x80, 2, '.'), /runs empty/],
      [pickle(0x80, 2, 'N'), /ends too early/],
      [pickle(0x80, 2, 'NN.'), /not empty at the end/],
      [pickle(0x80, 2, 'N.N'), /bytes follow/],
      [pickle(0x80, 2, 't.'), /mark is missing/],
      [pickle(0x80, 2, '}(Nu.'), /key has no value/],
      [pickle(0x80, 2, 'NNNs.'), /no dict/],
      [pickle(0x80, 2, 'h', 7, '.'), /object 7/],
      [pickle(0x80, 2, '}NQ.'), /persistent id/],
      [pickle(0x80, 1, 'N.'), /protocol 1/],
      [pickle(0x80, 2, 'X', 0xff, 0xff, 0xff, 0x7f, 'abc'), /ends too early/],
    ] as const)
      refused(bytes, message);
  });

  it('does not recurse on a value that holds itself', async () => {
    const loop = pickle(0x80, 2, '}q', 0, 'X\x05\0\0\0model', 'h', 0, 's.');
    const file = new BytesInMemory('x.bin', zipFile({ 'x/data.pkl': loop }));
    expect((await failure(torchContainer(file))).message).to.match(/no tensors/);
    const self = unpickle(pickle(0x80, 2, ']q', 0, 'h', 0, 'a.'), 'x.bin') as unknown[];
    expect(self[0]).to.equal(self);
  });
});
