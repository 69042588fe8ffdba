/** What a signal leaves behind: nothing that is half written, whoever writes it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { exitCodeOf, onStopSignal, STOP_SIGNALS } from '../../src/base/stop_signals.js';

const WRITER = `
import * as fs from 'node:fs';
import { withLock } from '${path.resolve('src/base/lock.ts')}';
import { unfinishedUntil } from '${path.resolve('src/base/stop_signals.ts')}';
import { AtomicFile } from '${path.resolve('src/base/whole_files.ts')}';
const [dir, how] = process.argv.slice(1);
if (how === 'before') process.once('SIGHUP', () => setTimeout(() => process.exit(4), 50));
const whole = await AtomicFile.create(dir + '/whole');
await whole.write(new Uint8Array(10));
await whole.commit();
await withLock(dir + '/lock', async () => {
  unfinishedUntil(dir + '/folder');
  fs.mkdirSync(dir + '/folder');
  fs.writeFileSync(dir + '/folder/one', 'x');
  const out = await AtomicFile.create(dir + '/folder/half');
  await out.write(new Uint8Array(10));
  if (how === 'exit') process.exit(3);
  if (how === 'after') process.once('SIGHUP', () => setTimeout(() => process.exit(4), 50));
  console.log('writing');
  await new Promise((resolve) => setTimeout(resolve, 60_000));
});
`;

describe('signals that end a program', function () {
  this.timeout(60_000);
  let dir: string;
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'signals-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

  const write = async (how: string, signal?: NodeJS.Signals): Promise<[number | null, string | null]> => {
    const args = ['--import', 'tsx', '--input-type=module', '-e', WRITER, dir, how];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.on('data', () => signal && child.kill(signal));
    return (await once(child, 'exit')) as [number | null, string | null];
  };

  for (const signal of STOP_SIGNALS)
    it(`${signal} leaves no file or folder half written, nor a lock, and ends the process`, async () => {
      expect(await write('wait', signal)).to.deep.equal([null, signal]);
      expect(fs.readdirSync(dir)).to.deep.equal(['whole']);
    });

  it('nor do an exit, and a listener of the program', async () => {
    expect(await write('exit')).to.deep.equal([3, null]);
    expect(fs.readdirSync(dir)).to.deep.equal(['whole']);
    for (const how of ['before', 'after']) {
      expect(await write(how, 'SIGHUP')).to.deep.equal([4, null]);
      expect(fs.readdirSync(dir)).to.deep.equal(['whole']);
    }
  });

  it('are taken once, and the listeners go', () => {
    const counts = (): number[] => STOP_SIGNALS.map((signal) => process.listenerCount(signal));
    const before = counts();
    const seen: string[] = [];
    const off = onStopSignal((signal) => seen.push(signal));
    expect(counts()).to.deep.equal(before.map((n) => n + 1));
    process.emit('SIGHUP', 'SIGHUP');
    expect([seen, counts()]).to.deep.equal([['SIGHUP'], before]);
    off();
    expect(counts()).to.deep.equal(before);
    expect(STOP_SIGNALS.map(exitCodeOf)).to.deep.equal([130, 143, 129]);
  });
});
