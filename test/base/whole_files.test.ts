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

  it('that killed processes left half written go with the next one; those of living processes and other machines stay', async () => {
    const begun = (name: string, end: string): void => {
      const code = `
        const { AtomicFile } = await import('./src/base/whole_files.ts');
        await (await AtomicFile.create(${JSON.stringify(path.join(dir, name))})).write(Buffer.from('abc'));
        ${end}`;
      const run = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
        cwd: fileURLToPath(new URL('../..', import.meta.url)),
        encoding: 'utf8',
      });
      expect(run.signal, run.stderr).to.equal('SIGKILL');
    };
    begun('x', "process.kill(process.pid, 'SIGKILL')");
    begun('another, with a very long name'.repeat(8), "process.kill(process.pid, 'SIGKILL')");
    const left = fs.readdirSync(dir);
    expect(left).to.have.length(1); // the second began with removing what the first left
    const [stale] = left as [string];
    const of = (from: RegExp, to: string): void => {
      expect(stale).to.match(from);
      fs.writeFileSync(path.join(dir, stale.replace(from, to)), '');
    };
    of(/-[0-9a-f]{8}-(?=[0-9a-f]{12}\.part$)/, '-00000000-'); // another machine
    of(/\.\d+-\d+-/, '.1-99999999999-'); // the number of a process that lives, and began at another time
    fs.writeFileSync(path.join(dir, '.mine.part'), '');
    const living = await AtomicFile.create(path.join(dir, 'living'));
    await living.write(Buffer.from('whole'));
    await writeFileAtomic(path.join(dir, 'y'), 'abc');
    await living.commit();
    expect(fs.readFileSync(path.join(dir, 'living'), 'utf8')).to.equal('whole');
    const names = fs.readdirSync(dir).map((name) => name.replace(/^.*-00000000-.*/, 'of another machine'));
    expect(names.sort()).to.deep.equal(['.mine.part', 'living', 'of another machine', 'y']);
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
