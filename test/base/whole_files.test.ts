import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { SaveError } from '../../src/base/errors.js';
import {
  AtomicFile,
  replaceFolder,
  saveError,
  writeAside,
  writeFileAtomic,
  writeTogether,
} from '../../src/base/whole_files.js';
import { rejection } from '../support/errors.js';

describe('files that are written', () => {
  let dir = '';
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'files-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

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
    expect(await rejection(other.write(Buffer.from('h')))).to.be.instanceOf(SaveError);
  });

  it('leave nothing when their name is taken by a folder', async () => {
    fs.mkdirSync(path.join(dir, 'x'));
    expect(await rejection(writeFileAtomic(path.join(dir, 'x'), 'abc'))).to.be.instanceOf(SaveError);
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
      const { openCheckpoint, convertCheckpoint } = await import('./src/models/checkpoints.ts');
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

  it('get their names together, or none of them does', async () => {
    const [a, b] = ['a', 'b'].map((name) => path.join(dir, name)) as [string, string];
    const write = (fail: boolean): Promise<void> =>
      writeTogether(async (aside) => {
        aside.push(await writeAside(a, 'one'));
        expect(fs.existsSync(a)).to.equal(false);
        if (fail) throw new Error('on purpose');
        aside.push(await writeAside(b, Buffer.from('two')));
      });
    expect((await rejection(write(true))).message).to.equal('on purpose');
    expect(fs.readdirSync(dir)).to.deep.equal([]);
    await write(false);
    expect([a, b].map((file) => fs.readFileSync(file, 'utf8'))).to.deep.equal(['one', 'two']);
    expect(fs.readdirSync(dir).sort()).to.deep.equal(['a', 'b']);
  });

  it('replace a folder, which has its name again when that fails', async () => {
    const at = (...names: string[]): string => path.join(dir, ...names);
    const folder = (name: string, text: string): void => {
      fs.mkdirSync(at(name));
      fs.writeFileSync(at(name, 'x'), text);
    };
    folder('new', '1');
    await replaceFolder(at('new'), at('folder'), at('old'));
    folder('new', '2');
    folder('old', 'left behind');
    await replaceFolder(at('new'), at('folder'), at('old'));
    expect(fs.readdirSync(dir)).to.deep.equal(['folder']);
    expect(fs.readFileSync(at('folder', 'x'), 'utf8')).to.equal('2');
    expect((await rejection(replaceFolder(at('gone'), at('folder'), at('old')))).message).to.match(/ENOENT/);
    expect(fs.readdirSync(dir)).to.deep.equal(['folder']);
    expect(fs.readFileSync(at('folder', 'x'), 'utf8')).to.equal('2');
  });
});
