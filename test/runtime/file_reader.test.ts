/** Files read by several threads into memory that TensorFlow takes over (native/file_reader.cc). */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { begunAhead } from '../../src/base/ahead.js';
import { convertedBlock, newBlock, readBlock } from '../../src/base/blocks.js';
import { RandomAccessFile } from '../../src/base/files.js';
import { decodeFloat32, encodeFloat32 } from '../../src/base/stored_dtypes.js';
import { Program } from '../../src/jit/index.js';
import { useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';

const SIZE = 9_000_001;

describe('files read by several threads', () => {
  let dir = '';
  let file = '';
  let bytes = new Uint8Array(0);
  before(async () => {
    await useBackend('tensorflow');
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'reader-'));
    file = path.join(dir, 'bytes');
    bytes = Uint8Array.from({ length: SIZE }, (_, i) => (i * 31 + (i >> 8) * 7) & 255);
    fs.writeFileSync(file, bytes);
  });
  after(() => fs.rmSync(dir, { recursive: true, force: true }));

  it('have the bytes of the file at any place, many at once, also when the file is closed meanwhile', async () => {
    const open = await RandomAccessFile.open(file);
    const ranges = [
      [0, SIZE],
      [1, SIZE - 1],
      [4_194_303, 70_001],
      [SIZE - 65_537, 65_537],
    ] as const;
    const read = await Promise.all(ranges.map(([at, size]) => open.read(at, size)));
    ranges.forEach(([at, size], i) => expect(Buffer.compare(read[i]!, bytes.subarray(at, at + size))).to.equal(0));
    const handle = await fs.promises.open(file);
    const late = readBlock(handle.fd, 5, SIZE - 5);
    await handle.close();
    expect(Buffer.compare((await late)!, bytes.subarray(5))).to.equal(0);
    await open.close();
  });

  it('say what is wrong: a file that ends, one that is none', async () => {
    const handle = await fs.promises.open(file);
    const short = await rejection(readBlock(handle.fd, SIZE - 10, 100_000));
    expect(short).to.have.property('code', 'EOF');
    await handle.close();
    const none = await rejection(readBlock(1_000_000, 0, 100_000));
    expect(none).to.have.property('code', 'EBADF');
    const open = await RandomAccessFile.open(file);
    fs.truncateSync(file, SIZE - 1);
    expect((await rejection(open.read(0, SIZE))).message).to.match(/ended at byte|was changed while it was read/);
    fs.writeFileSync(file, bytes);
    await open.close();
  });

  it('are numbers of another type once threads have converted them, to the bit', async () => {
    const words = new Uint32Array(2 ** 21 + 5);
    let state = 7;
    for (let i = 0; i < words.length; i++) words[i] = state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words.set([
      0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff, 0x7f7fffff, 0x3f808000, 0x3f818000, 0x80000000,
    ]);
    const floats = new Uint8Array(words.buffer);
    const half = encodeFloat32(decodeFloat32(floats, 'F32'), 'BF16');
    const rounded = await convertedBlock(floats, 'F32 to BF16', half.byteLength);
    expect(Buffer.compare(rounded!, half)).to.equal(0);
    expect(Buffer.compare((await convertedBlock(floats, 'F32 to F32', floats.byteLength))!, floats)).to.equal(0);
    const every = new Uint8Array(Uint16Array.from({ length: 2 ** 16 }, (_, i) => i).buffer);
    const wide = new Uint32Array((await convertedBlock(every, 'BF16 to F32', 2 ** 18))!.buffer);
    expect(wide.length).to.equal(2 ** 16);
    expect(wide.every((bits, i) => bits === (i << 16) >>> 0)).to.equal(true);
    const odd = new Uint8Array(new ArrayBuffer(2 ** 18 + 1), 1, 2 ** 18);
    expect(await convertedBlock(odd, 'F32 to F32', 2 ** 18), 'where numbers lie between words').to.equal(null);
    expect(await convertedBlock(floats, 'F16 to F32', 2 * floats.byteLength), 'an unknown conversion').to.equal(null);
  });

  it('become a variable as they are: a block that is set is not copied', async () => {
    const size = 2 ** 26;
    const holding = (block: Uint8Array): Program => {
      const program = new Program();
      program.variable('w', { shape: [block.length], dtype: 'uint8', init: () => block });
      return program;
    };
    // the first program brings TensorFlow's own memory with it
    const first = holding(new Uint8Array(newBlock(16)).fill(7));
    await first.compile();
    first.dispose();
    const program = holding(new Uint8Array(newBlock(size)).fill(7));
    const before = process.memoryUsage.rss();
    await program.compile();
    expect(process.memoryUsage.rss() - before).to.be.below(size / 2);
    expect(program.readBytes('w').subarray(0, 3)).to.deep.equal(Uint8Array.of(7, 7, 7));
    program.dispose();
  });
});

describe('work begun ahead', () => {
  it('comes in order, and weighs no more than allowed at a time but for one piece alone', async () => {
    let [weight, most] = [0, 0];
    const begun: number[] = [];
    const weights = [3, 9, 1, 1, 1, 4, 2];
    const work = weights.map((own, i) => ({
      weight: own,
      begin: async () => {
        begun.push(i);
        weight += own;
        if (begun.length > 2) most = Math.max(most, weight);
        await new Promise((resolve) => setTimeout(resolve, (7 - i) * 2));
        return i;
      },
    }));
    const seen: number[] = [];
    for await (const i of begunAhead(work, 5)) {
      seen.push(i);
      weight -= weights[i]!;
      if (i === 1) expect(begun).to.deep.equal([0, 1]);
      if (i === 2) expect(begun).to.deep.equal([0, 1, 2, 3, 4]);
    }
    expect(seen).to.deep.equal([0, 1, 2, 3, 4, 5, 6]);
    expect(most).to.be.at.most(5 + 1);
  });

  it('fails in its turn, and what was begun after it fails nobody', async () => {
    const fails = (text: string) => ({ weight: 1, begin: () => Promise.reject(new Error(text)) });
    const seen: number[] = [];
    const run = async (): Promise<void> => {
      for await (const i of begunAhead<number>([{ weight: 1, begin: () => 1 }, fails('first'), fails('second')], 9))
        seen.push(i);
    };
    expect((await rejection(run())).message).to.equal('first');
    expect(seen).to.deep.equal([1]);
  });
});
