import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { AtomicFile, RandomAccessFile, writeFileAtomic } from '../../src/checkpoints/index.js';
import { saveError } from '../../src/base/files.js';
import { CheckpointError, SaveError } from '../../src/base/errors.js';

describe('files', () => {
  let dir = '';
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'files-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));
  const failure = async (promise: Promise<unknown>): Promise<Error> =>
    promise.then(
      () => expect.fail('no error'),
      (e: unknown) => e as Error,
    );

  it('are read within their size only', async () => {
    const name = path.join(dir, 'x');
    fs.writeFileSync(name, 'abcdef');
    const file = await RandomAccessFile.open(name);
    expect(Buffer.from(await file.read(2, 3)).toString()).to.equal('cde');
    expect(Buffer.from(file.readSync(0, 6)).toString()).to.equal('abcdef');
    for (const [offset, length] of [
      [4, 3],
      [-1, 2],
      [0, -1],
      [7, 0],
      [NaN, 1],
      [0, 2 ** 52],
    ] as const)
      // prettier-ignore
      expect(await failure(file.read(offset, length))).to.be.instanceOf(CheckpointError);
    // a file that shrinks while it is read is no file of zeros
    fs.truncateSync(name, 3);
    expect((await failure(file.read(0, 6))).message).to.match(/ended at byte 3/);
    expect(() => file.readSync(2, 4)).to.throw(CheckpointError, /ended at byte 3/);
    await file.close();
    expect((await failure(file.read(0, 1))).message).to.match(/was closed/);
  });

  it('must be regular ones: a pipe would block', async () => {
    const pipe = path.join(dir, 'pipe');
    expect(spawnSync('mkfifo', [pipe]).status).to.equal(0);
    expect((await failure(RandomAccessFile.open(pipe))).message).to.match(/not a regular file/);
    expect((await failure(RandomAccessFile.open(dir))).message).to.match(/not a regular file/);
    expect((await failure(RandomAccessFile.open(path.join(dir, 'gone')))).message).to.match(/no such file/);
  });

  it('get their name when whole, and leave nothing when given up', async () => {
    const name = path.join(dir, 'x');
    const file = await AtomicFile.create(name);
    await file.write(Buffer.from('abc'));
    expect(fs.existsSync(name)).to.equal(false);
    await file.commit();
    expect(fs.readFileSync(name, 'utf8')).to.equal('abc');
    const other = await AtomicFile.create(name);
    await other.write(Buffer.from('defg'));
    expect(other.written).to.equal(4);
    await other.abort();
    expect(fs.readdirSync(dir)).to.deep.equal(['x']);
    expect(fs.readFileSync(name, 'utf8')).to.equal('abc');
    expect(await failure(other.write(Buffer.from('h')))).to.be.instanceOf(SaveError);
  });

  it('leave nothing when their name is taken by a folder', async () => {
    fs.mkdirSync(path.join(dir, 'x'));
    expect(await failure(writeFileAtomic(path.join(dir, 'x'), 'abc'))).to.be.instanceOf(SaveError);
    expect(fs.readdirSync(dir)).to.deep.equal(['x']);
  });

  it('say what to do when the disk is full or may not be written', () => {
    const of = (code: string): SaveError =>
      saveError('out/model.safetensors', Object.assign(new Error(code), { code }));
    expect(of('ENOSPC').message).to.match(/out\/model\.safetensors\. The disk is full: free some space/);
    expect(of('EACCES').message).to.match(/may not be written/);
    expect(of('ENOSPC').data).to.include({ file: 'out/model.safetensors', code: 'ENOSPC' });
  });

  it('leave no trace of a model when there is no room for it', function () {
    // a limit on the size of files stands in for a full disk
    const src = fileURLToPath(new URL('../../models/tiny-books-mamba2', import.meta.url));
    const code = `
      process.on('SIGXFSZ', () => {});
      const { openCheckpoint, convertCheckpoint } = await import('./src/checkpoints/index.ts');
      const source = await openCheckpoint(${JSON.stringify(src)});
      await convertCheckpoint(source, ${JSON.stringify(path.join(dir, 'out'))}).catch((e) => console.log(e.name, e.data.code));`;
    const node = [process.execPath, '--import', 'tsx', '--input-type=module', '-e', code];
    const run = spawnSync('bash', ['-c', 'ulimit -f 4000; exec "$@"', 'bash', ...node], {
      cwd: fileURLToPath(new URL('../..', import.meta.url)),
      encoding: 'utf8',
    });
    expect(run.stdout, run.stderr).to.equal('SaveError EFBIG\n');
    expect(fs.readdirSync(path.join(dir, 'out'))).to.deep.equal([]);
  });
});
