/**
 * Damaged files by the thousand: whatever is done to a safetensors file, a zip or a pickle, reading it ends, soon, with
 * the right tensors or with one of our errors, and reads or allocates no more than the file holds.
 *
 * FUZZ_CASES (default 20000) and FUZZ_SEED (default 1) make longer and other runs.
 */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import {
  parseConfigJson,
  safetensorsContainer,
  SafetensorsFile,
  torchContainer,
  type Container,
} from '../../src/checkpoints/index.js';
import { validateCheckpoint } from '../../src/models/checkpoints.js';
import type { ByteSource } from '../../src/base/files.js';
import { withHuggingFaceNames } from '../../src/checkpoints/names.js';
import { NamedCheckpoint } from '../../src/checkpoints/open.js';
import { mamba2Format } from '../../src/models/mamba2/checkpoint/format.js';
import { readZipDirectory } from '../../src/checkpoints/zip.js';
import { Mamba2Error } from '../../src/base/errors.js';
import { fixture } from '../support/goldens.js';
import { zipFile } from '../support/zip_file.js';

const CASES = Number(process.env.FUZZ_CASES ?? 20_000);
const SEED = Number(process.env.FUZZ_SEED ?? 1);

/** xorshift32: whole numbers below n. */
function random(seed: number): (n: number) => number {
  let state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
  return (n) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % n;
  };
}

/** Bytes with meaning in one of the formats, likelier to lead somewhere than random ones. */
const TOKENS = [
  ...['0', '9', '-', '[', ']', '{', '}', '"', ',', ':', '\\', 'null', 'F16', 'I64', '1e999', '18446744073709551615'],
  ...[
    'PK\x01\x02',
    'PK\x05\x06',
    'PK\x06\x07',
    '\xff\xff\xff\xff',
    '\x00\x00\x00\x00',
    '\x01\x00',
    '(',
    't',
    'R',
    'Q',
    '.',
  ],
  ...['cos\nsystem\n', '\x85', '}', 'u', 'h\x00', 'X\xff\xff\xff\x7f', '\x94', '\x81', 'b'],
].map((text) => Buffer.from(text, 'latin1'));

/** One to four changes within [begin, end): flip, set, insert, delete, repeat, cut. */
function mutate(bytes: Uint8Array, begin: number, end: number, next: (n: number) => number): Uint8Array {
  let out = Buffer.from(bytes);
  let limit = end;
  for (let i = next(4); i >= 0 && limit > begin; i--) {
    const at = begin + next(limit - begin);
    const token = TOKENS[next(TOKENS.length)]!;
    const length = 1 + next(16);
    const before = out.length;
    switch (next(7)) {
      case 0:
        out[at]! ^= 1 << next(8);
        break;
      case 1:
        out[at] = next(256);
        break;
      case 2:
        out.set(token.subarray(0, out.length - at), at);
        break;
      case 3:
        out = Buffer.concat([out.subarray(0, at), token, out.subarray(at)]);
        break;
      case 4:
        out = Buffer.concat([out.subarray(0, at), out.subarray(Math.min(limit, at + length))]);
        break;
      case 5:
        out = Buffer.concat([out.subarray(0, at), out.subarray(at, at + length), out.subarray(at)]);
        break;
      default:
        if (next(4) === 0) out = out.subarray(0, at);
    }
    limit = Math.max(begin, Math.min(out.length, limit + out.length - before));
  }
  return new Uint8Array(out);
}

/** Bytes that remember how much was asked of them. */
class Watched implements ByteSource {
  readonly path = 'fuzz';
  readonly size: number;
  largest = 0;
  total = 0;
  closed = false;
  constructor(private readonly bytes: Uint8Array) {
    this.size = bytes.byteLength;
  }
  read(offset: number, length: number): Promise<Uint8Array> {
    return Promise.resolve(this.readSync(offset, length));
  }
  readSync(offset: number, length: number): Uint8Array {
    this.largest = Math.max(this.largest, length);
    this.total += length;
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) throw new Error(`read ${offset} + ${length}`);
    return this.bytes.slice(offset, offset + length);
  }
  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

type Opener = (file: ByteSource) => Promise<Container>;
const openSafetensors: Opener = async (file) => safetensorsContainer(await SafetensorsFile.from(file));

/** Names, dtypes, shapes and bytes of a container's tensors. */
async function contents(container: Container): Promise<Map<string, string>> {
  const out = new Map<string, string>();
  for (const [name, { dtype, shape, bytes, read }] of container.tensors) {
    const data = await read();
    expect(data.byteLength, name).to.equal(bytes);
    out.set(name, `${dtype} ${shape.join()} ${Buffer.from(data).toString('latin1')}`);
  }
  return out;
}

interface Tally {
  refused: number;
  accepted: number;
}

/** Opens and reads one damaged file; `check` sees what was accepted. */
async function attempt(
  bytes: Uint8Array,
  open: Opener,
  tally: Tally,
  check: (c: Container) => Promise<void>,
): Promise<void> {
  const file = new Watched(bytes);
  const start = performance.now();
  try {
    const container = await open(file);
    await check(container);
    tally.accepted++;
    await container.close();
  } catch (error) {
    if (!(error instanceof Mamba2Error)) throw error;
    expect(error.message).to.not.equal('');
    tally.refused++;
    if (!file.closed) await file.close();
  }
  expect(file.largest).to.be.at.most(bytes.byteLength);
  // every byte is looked at a few times at most: directory, checksum, tensor, comparison of the heads
  expect(file.total).to.be.at.most(64 * bytes.byteLength + 65_557);
  expect(performance.now() - start, 'milliseconds').to.be.lessThan(2000);
}

describe(`damaged files (${CASES} cases, seed ${SEED})`, function () {
  this.timeout(3_600_000);

  async function campaign(
    name: string,
    count: number,
    make: (next: (n: number) => number) => Uint8Array,
    open: Opener,
    check: (container: Container) => Promise<void>,
  ): Promise<Tally> {
    const tally: Tally = { refused: 0, accepted: 0 };
    for (let i = 0; i < count; i++) {
      const bytes = make(random(SEED * 1_000_003 + i));
      try {
        await attempt(bytes, open, tally, check);
      } catch (error) {
        const file = path.join(
          fs.mkdtempSync(path.join(process.env.TMPDIR ?? '/tmp', 'fuzz-')),
          `${name}-${SEED}-${i}`,
        );
        fs.writeFileSync(file, bytes);
        throw new Error(`case ${i} of ${name}, kept as ${file}: ${(error as Error).stack}`, { cause: error });
      }
    }
    expect(tally.refused + tally.accepted).to.equal(count);
    return tally;
  }

  /** What a model would check before it uses weights. */
  function validated(config: Record<string, unknown>, original: Map<string, string>): (c: Container) => Promise<void> {
    return async (container) => {
      const parts = withHuggingFaceNames(mamba2Format, container);
      const source = new NamedCheckpoint('hf', 'fuzz', config, parts, container);
      await validateCheckpoint(source);
      expect(await contents({ ...container, tensors: parts })).to.deep.equal(original);
    };
  }

  it('safetensors: header and length damaged', async () => {
    const dir = fixture('goldens/formats/broken/ok');
    const bytes = new Uint8Array(fs.readFileSync(path.join(dir, 'model.safetensors')));
    const config = parseConfigJson(fs.readFileSync(path.join(dir, 'config.json'), 'utf8'));
    const original = await contents(await openSafetensors(new Watched(bytes)));
    const header = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const make = (next: (n: number) => number): Uint8Array => {
      // half of the time the length is made to fit again, so that the damage is met by the header's own checks
      const out = mutate(bytes, next(2) ? 0 : 8, header, next);
      if (next(2) && out.byteLength >= 8) {
        const length = BigInt(Math.max(0, header - 8 + out.byteLength - bytes.byteLength));
        new DataView(out.buffer).setBigUint64(0, length, true);
      }
      return out;
    };
    const tally = await campaign(
      'safetensors',
      Math.ceil(CASES * 0.4),
      make,
      openSafetensors,
      validated(config, original),
    );
    expect(tally.refused).to.be.greaterThan(CASES * 0.2);
    expect(tally.accepted).to.be.greaterThan(0);
  });

  it('zip: any byte damaged', async () => {
    const dir = fixture('goldens/formats/broken/ok');
    const config = parseConfigJson(fs.readFileSync(path.join(dir, 'config.json'), 'utf8'));
    const whole = new Uint8Array(fs.readFileSync(fixture('torch/model.bin')));
    const original = await contents(await torchContainer(new Watched(whole)));
    const check = validated(config, original);
    await check(await torchContainer(new Watched(whole)));
    const make = (next: (n: number) => number): Uint8Array =>
      mutate(whole, next(2) ? 0 : whole.length - 1600, whole.length, next);
    const tally = await campaign('zip', Math.ceil(CASES * 0.3), make, torchContainer, check);
    expect(tally.refused).to.be.greaterThan(CASES * 0.1);
    expect(tally.accepted).to.be.greaterThan(0);
  });

  it('pickle: damaged inside a sound zip', async () => {
    const file = fixture('torch/views.bin');
    const entries = await zipEntries(new Uint8Array(fs.readFileSync(file)));
    const pickle = entries['views/data.pkl']!;
    const make = (next: (n: number) => number): Uint8Array =>
      zipFile({ ...entries, 'views/data.pkl': mutate(pickle, 2, pickle.length, next) });
    // a pickle can name another storage or offset without any trace, so only the tensors' sizes are checked here
    const check = async (container: Container): Promise<void> => void (await contents(container));
    const tally = await campaign('pickle', Math.ceil(CASES * 0.3), make, torchContainer, check);
    expect(tally.refused).to.be.greaterThan(CASES * 0.1);
    expect(tally.accepted).to.be.greaterThan(0);
  });
});

async function zipEntries(bytes: Uint8Array): Promise<Record<string, Uint8Array>> {
  const file = new Watched(bytes);
  const out: Record<string, Uint8Array> = {};
  for (const [name, { begin, end }] of await readZipDirectory(file)) out[name] = await file.read(begin, end - begin);
  return out;
}
