import { expect } from 'chai';
import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { SaveError } from '../../src/base/errors.js';
import { withLock } from '../../src/base/lock.js';

describe('withLock', () => {
  let folder: string;
  beforeEach(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'))));
  afterEach(() => fs.rmSync(folder, { recursive: true }));

  it('lets processes in one at a time, and leaves nothing', async () => {
    const script = `
      import * as fs from 'node:fs';
      import { withLock } from ${JSON.stringify(path.resolve('src/base/lock.ts'))};
      await withLock('lock', async () => {
        fs.appendFileSync('log', 'in ');
        await new Promise((resolve) => setTimeout(resolve, 30));
        fs.appendFileSync('log', 'out ');
      });`;
    fs.writeFileSync(path.join(folder, 'run.mts'), script);
    const tsx = path.resolve('node_modules/tsx/dist/loader.mjs');
    const run = () =>
      new Promise((resolve) =>
        spawn(process.execPath, ['--import', tsx, 'run.mts'], { cwd: folder }).on('close', resolve),
      );
    expect(await Promise.all([run(), run(), run()])).to.deep.equal([0, 0, 0]);
    expect(fs.readFileSync(path.join(folder, 'log'), 'utf8')).to.equal('in out in out in out ');
    expect(fs.readdirSync(folder).sort()).to.deep.equal(['log', 'run.mts']);
  });

  it('takes over the lock of a process that died', async () => {
    const lock = path.join(folder, 'lock');
    const child = spawn('true');
    await new Promise((resolve) => child.on('close', resolve));
    fs.writeFileSync(lock, String(child.pid));
    expect(await withLock(lock, async () => 'done')).to.equal('done');
    expect(fs.readdirSync(folder)).to.deep.equal([]);
  });

  it('is released when the work fails', async () => {
    const lock = path.join(folder, 'lock');
    const failure = new Error('on purpose');
    expect(await withLock(lock, () => Promise.reject(failure)).catch((error: unknown) => error)).to.equal(failure);
    expect(fs.existsSync(lock)).to.equal(false);
  });

  it('waits for a living holder, tells of it once, and stops waiting at a signal', async () => {
    const lock = path.join(folder, 'lock');
    const told: string[] = [];
    const order: string[] = [];
    const options = { poll: 5, onWait: (pid: string) => told.push(pid) };
    const slow = async (): Promise<void> => {
      await new Promise((resolve) => setTimeout(resolve, 40));
      order.push('first');
    };
    const first = withLock(lock, slow);
    const second = withLock(lock, async () => void order.push('second'), options);
    const stop = new AbortController();
    const third = withLock(lock, async () => void order.push('third'), { signal: stop.signal, poll: 5 });
    stop.abort(new Error('enough'));
    expect(await third.catch((error: unknown) => (error as Error).message)).to.equal('enough');
    await Promise.all([first, second]);
    expect(order).to.deep.equal(['first', 'second']);
    expect(told).to.deep.equal([String(process.pid)]);
    expect(fs.readdirSync(folder)).to.deep.equal([]);
  });

  it('leaves the lock of another machine alone, whatever runs here', async () => {
    const lock = path.join(folder, 'lock');
    const { pid } = spawnSync(process.execPath, ['-e', '']);
    fs.writeFileSync(lock, `${pid} another-machine`);
    const signal = AbortSignal.timeout(60);
    const error = await withLock(lock, async () => 'done', { signal, poll: 5 }).catch((e: unknown) => e);
    expect(error).to.have.property('name', 'TimeoutError');
    expect(fs.readFileSync(lock, 'utf8')).to.equal(`${pid} another-machine`);
  });

  it('takes over a lock that has named nobody for long', async () => {
    const lock = path.join(folder, 'lock');
    fs.writeFileSync(lock, '');
    const signal = AbortSignal.timeout(60);
    expect(await withLock(lock, async () => 'done', { signal, poll: 5 }).catch(() => 'waited')).to.equal('waited');
    const old = new Date(Date.now() - 10_000);
    fs.utimesSync(lock, old, old);
    expect(await withLock(lock, async () => 'done')).to.equal('done');
    expect(fs.readdirSync(folder)).to.deep.equal([]);
  });

  it('takes over a lock whose process number was given to another, or that names none', async () => {
    const lock = path.join(folder, 'lock');
    const here = os.hostname();
    const old = new Date(Date.now() - 10_000);
    const began = fs.readFileSync(`/proc/${process.ppid}/stat`, 'latin1').split(') ').at(-1)!.split(' ')[19];
    for (const text of [
      `${process.ppid} ${here} 1`, // it began at another time
      `1 ${here} 1`,
      ...['1', `1 ${here}`, '0', '-1', '-1 x 3', 'nobody', '\0\0\0\0', '9'.repeat(400), '{"pid": 1}'],
    ]) {
      fs.writeFileSync(lock, text);
      fs.utimesSync(lock, old, old);
      const signal = AbortSignal.timeout(500);
      expect(await withLock(lock, async () => 'done', { signal, poll: 5 }).catch(() => 'waited'), text).to.equal(
        'done',
      );
    }
    fs.writeFileSync(lock, `${process.ppid} ${here} ${began}`);
    fs.utimesSync(lock, old, old);
    const signal = AbortSignal.timeout(60);
    expect(await withLock(lock, async () => 'done', { signal, poll: 5 }).catch(() => 'waited')).to.equal('waited');
  });

  it('takes over what is no file, and a lock of another machine that has been silent for long', async () => {
    const lock = path.join(folder, 'lock');
    const make = [
      () => spawnSync('mkfifo', [lock]),
      () => fs.mkdirSync(lock),
      () => fs.symlinkSync('nowhere', lock),
      () => fs.writeFileSync(lock, '12 another-machine 5'),
    ];
    for (const one of make) {
      one();
      const old = new Date(Date.now() - 3_600_000);
      fs.lutimesSync(lock, old, old);
      const signal = AbortSignal.timeout(500);
      expect(await withLock(lock, async () => 'done', { signal, poll: 5 }).catch(() => 'waited'), String(one)).to.equal(
        'done',
      );
      expect(fs.readdirSync(folder)).to.deep.equal([]);
    }
  });

  it('says who is waited for, and ends the wait where that throws', async () => {
    const lock = path.join(folder, 'lock');
    fs.writeFileSync(lock, '12 another-machine 5');
    const busy = (pid: string, who: string): never => {
      throw new Error(`busy: ${pid}, ${who}`);
    };
    const error = await withLock(lock, async () => 'done', { onWait: busy }).catch((e: unknown) => e);
    expect(error).to.have.property('message', 'busy: 12, process 12 on another-machine');
  });

  it('says where it cannot be written', async () => {
    fs.writeFileSync(path.join(folder, 'file'), '');
    const error = await withLock(path.join(folder, 'file', 'lock'), async () => 'done').catch((e: unknown) => e);
    expect(error).to.be.instanceOf(SaveError);
  });
});
