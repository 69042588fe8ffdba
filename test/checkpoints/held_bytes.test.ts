/** Bytes that the runtime holds: read from a file, never seen by JavaScript, and handed to a program's variable as they are. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { RandomAccessFile } from '../../src/base/files.js';
import { Program } from '../../src/jit/index.js';
import { selectBackend } from '../../src/runtime/index.js';

describe('held bytes', () => {
  let folder = '';
  let file: RandomAccessFile;
  // a whole number of neither pieces nor pages, and large enough for pages of 2 MB
  const values = Float32Array.from({ length: 3_000_001 }, (_, i) => Math.sin(i));

  before(async () => {
    await selectBackend('cpu');
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'held-'));
    fs.writeFileSync(path.join(folder, 'file'), Buffer.concat([Buffer.alloc(12), new Uint8Array(values.buffer)]));
    file = await RandomAccessFile.open(path.join(folder, 'file'));
  });
  after(async () => {
    await file.close();
    fs.rmSync(folder, { recursive: true, force: true });
  });

  it('become variables with the values of the file, large and small', async () => {
    for (const [from, count] of [
      [0, 3_000_001],
      [5, 1 << 20],
      [7, 20_000],
    ] as const) {
      const held = await file.readHeld(12 + 4 * from, 4 * count);
      expect(held!.byteLength).to.equal(4 * count);
      const program = new Program();
      program.variable('x', { shape: [count], dtype: 'float32', init: () => held! });
      program.define('nothing', {}, (_, { x }) => ({ outputs: { x: x! } }));
      await program.compile();
      expect(program.read('x')).to.deep.equal(values.slice(from, from + count));
      program.dispose();
    }
  });

  it('are none where the bytes are few, or no whole words', async () => {
    expect(await file.readHeld(0, 400)).to.equal(null);
    expect(await file.readHeld(0, 400_002)).to.equal(null);
  });

  it('are refused where the variable has another size', async () => {
    const held = await file.readHeld(12, 400_000);
    const program = new Program();
    program.variable('x', { shape: [100_001], dtype: 'float32', init: () => held! });
    program.define('nothing', {}, (_, { x }) => ({ outputs: { x: x! } }));
    const failed = await program.compile().then(
      () => null,
      (error: Error) => error,
    );
    expect(failed?.message).to.match(/got 400000 bytes, expected 400004/);
  });

  it('cannot be read past the end of the file', async () => {
    const failed = await file.readHeld(12, 4 * values.length + 4).then(
      () => null,
      (error: Error) => error,
    );
    expect(failed?.message).to.match(/bytes 12 to/);
  });
});
