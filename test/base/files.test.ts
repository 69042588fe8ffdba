import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { spawnSync } from 'node:child_process';
import { RandomAccessFile } from '../../src/base/files.js';
import { CheckpointError } from '../../src/base/errors.js';
import { rejection } from '../support/errors.js';

describe('files', () => {
  let dir = '';
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'files-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

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
      expect(await rejection(file.read(offset, length))).to.be.instanceOf(CheckpointError);
    // a file that shrinks while it is read is no file of zeros
    fs.truncateSync(name, 3);
    expect((await rejection(file.read(0, 6))).message).to.match(/ended at byte 3/);
    expect(() => file.readSync(2, 4)).to.throw(CheckpointError, /ended at byte 3/);
    await file.close();
    expect((await rejection(file.read(0, 1))).message).to.match(/was closed/);
  });

  it('must be regular ones: a pipe would block', async () => {
    const pipe = path.join(dir, 'pipe');
    expect(spawnSync('mkfifo', [pipe]).status).to.equal(0);
    expect((await rejection(RandomAccessFile.open(pipe))).message).to.match(/not a regular file/);
    expect((await rejection(RandomAccessFile.open(dir))).message).to.match(/not a regular file/);
    expect((await rejection(RandomAccessFile.open(path.join(dir, 'gone')))).message).to.match(/no such file/);
  });
});
