import { expect } from 'chai';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';

const COUNT = 9;

/** A process that compiles so many functions, with its cache in a folder of the test's own. */
const PROGRAM = `
import * as tf from '@tensorflow/tfjs';
import { configureRuntime, loadTensorFlow } from ${JSON.stringify(path.resolve('src/runtime/index.ts'))};
import { Program } from ${JSON.stringify(path.resolve('src/jit/index.ts'))};
const [folder, full] = process.argv.slice(2);
configureRuntime({ compileCache: folder || true });
loadTensorFlow('cpu');
const program = new Program();
for (let k = 1; k <= ${COUNT}; k++)
  program.define('f' + k, { x: { shape: [64, 64], dtype: 'float32' } }, ({ x }) => ({ outputs: { y: tf.sum(tf.matMul(tf.relu(x), tf.mul(x, k))) } }));
await program.compile();
const [{ writeFileSync }, x] = [await import('node:fs'), new Float32Array(4096).fill(0.5)];
const results = Array.from({ length: ${COUNT} }, (_, i) => i + 1).map((k) => {
  if (full && k === 2) try { writeFileSync(full, Buffer.alloc(1 << 22)); } catch {}
  return program.callSync('f' + k, { x }).y[0];
});
process.stdout.write(JSON.stringify(results));
`;

/** 4,096 sums of 64 products 0.5 · 0.5k */
const RIGHT = JSON.stringify(Array.from({ length: COUNT }, (_, i) => 4096 * 64 * 0.25 * (i + 1)));

describe('compiled programs that are kept', function () {
  this.timeout(60_000);
  let root: string;
  let script: string;
  beforeEach(() => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'));
    fs.mkdirSync(path.join(root, 'tmp'));
    script = path.resolve(`test/runtime/.kept-${process.pid}.mts`);
    fs.writeFileSync(script, PROGRAM);
  });
  afterEach(() => {
    fs.rmSync(root, { recursive: true, force: true });
    fs.rmSync(script);
  });

  function start(folder: string, args: string[] = [], env: Record<string, string> = {}): SpawnSyncReturns<string> {
    return spawnSync(process.execPath, ['--import', 'tsx', script, folder, ...args], {
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '', TMPDIR: path.join(root, 'tmp'), ...env },
    });
  }

  /** A run that computes what is right and leaves nothing in the temporary folder; returns what it said. */
  function runs(folder: string, args: string[] = [], env: Record<string, string> = {}): string {
    const { stdout, stderr, status, signal } = start(folder, args, env);
    expect({ stdout, status, signal }, stderr).to.deep.equal({ stdout: RIGHT, status: 0, signal: null });
    expect(left()).to.deep.equal([]);
    return stderr;
  }

  /** What is in the temporary folder, but for what the loader of TypeScript has there. */
  const left = (): string[] => fs.readdirSync(path.join(root, 'tmp')).filter((name) => !name.startsWith('tsx-'));

  const programs = (folder: string): string[] =>
    fs
      .readdirSync(folder)
      .filter((name) => name.endsWith('.pb'))
      .sort()
      .map((name) => path.join(folder, name));
  /** What says which file it is: the number of one that was removed may be the next one's. */
  const inodes = (folder: string): string[] =>
    programs(folder).map((file) => {
      const { ino, ctimeNs } = fs.statSync(file, { bigint: true });
      return `${ino} ${ctimeNs}`;
    });

  it('are taken by the next process, and are for this user alone', () => {
    const folder = path.join(root, 'kept');
    expect(runs(folder)).to.equal('');
    expect(fs.statSync(folder).mode & 0o777).to.equal(0o700);
    const first = inodes(folder);
    expect(first).to.have.length(COUNT);
    expect(runs(folder)).to.equal('');
    expect(inodes(folder), 'nothing is written anew').to.deep.equal(first);
  });

  const zeros = Buffer.alloc(512);
  const damages: Record<string, (file: string) => void> = {
    'cut to nothing': (file) => fs.truncateSync(file, 0),
    'cut in half': (file) => fs.truncateSync(file, fs.statSync(file).size >> 1),
    'zeros in the middle, with its old times': (file) => {
      const { size, atime, mtime } = fs.statSync(file);
      const handle = fs.openSync(file, 'r+');
      for (let at = size >> 3; at + 512 < size; at += size >> 3) fs.writeSync(handle, zeros, 0, 512, at);
      fs.closeSync(handle);
      fs.utimesSync(file, atime, mtime);
    },
    'one bit': (file) => {
      const bytes = fs.readFileSync(file);
      bytes[bytes.length >> 1]! ^= 1;
      fs.writeFileSync(file, bytes);
    },
    'no checksum': (file) => fs.rmSync(`${file}.sum`),
    'a damaged checksum': (file) => fs.truncateSync(`${file}.sum`, 20),
    'a link to another file': (file) => {
      fs.renameSync(file, `${file}.moved`);
      fs.symlinkSync(`${file}.moved`, file);
    },
    'written by others': (file) => fs.chmodSync(file, 0o666),
  };
  it('are compiled anew where they are damaged, each alone, and are whole again then', () => {
    const folder = path.join(root, 'kept');
    runs(folder);
    const first = inodes(folder);
    Object.values(damages).forEach((damage, i) => damage(programs(folder)[i]!));
    expect(runs(folder)).to.equal('');
    const second = inodes(folder);
    Object.keys(damages).forEach((what, i) => expect(second[i], what).not.to.equal(first[i]));
    expect(second.slice(COUNT - 1), 'what was whole is kept').to.deep.equal(first.slice(COUNT - 1));
    expect(runs(folder)).to.equal('');
    expect(inodes(folder)).to.deep.equal(second);
  });

  it('are not used from a folder that others may write, nor kept there, which is said in one line', () => {
    const folder = path.join(root, 'kept');
    runs(folder);
    fs.chmodSync(folder, 0o777);
    for (const file of programs(folder)) fs.truncateSync(file, 100);
    const said = /Nothing that was compiled is kept or used: \S+kept may be written by others/;
    expect(runs(folder)).to.match(said);
    expect(programs(folder).map((file) => fs.statSync(file).size)).to.deep.equal(Array<number>(COUNT).fill(100));
    const cache = path.join(root, 'cache', 'tfjs-mamba2');
    fs.mkdirSync(path.join(cache, 'xla'), { recursive: true });
    fs.symlinkSync(runtimes, path.join(cache, 'runtime'));
    fs.chmodSync(path.join(cache, 'xla'), 0o775);
    expect(runs('', [], { XDG_CACHE_HOME: path.dirname(cache) })).to.match(/xla may be written by others/);
    expect(fs.readdirSync(cache).sort()).to.deep.equal(['runtime', 'xla']);
  });

  it("are not used from another user's folder", function () {
    if (process.geteuid?.() !== 0) this.skip(); // nobody else can give folders away
    const folder = path.join(root, 'kept');
    runs(folder);
    fs.chownSync(folder, 12345, 12345);
    expect(runs(folder)).to.match(/kept belongs to the user 12345, and this is 0/);
    fs.chownSync(folder, 0, 0);
    const first = inodes(folder);
    fs.chownSync(programs(folder)[0]!, 12345, 12345);
    expect(runs(folder), 'a file of theirs is compiled anew').to.equal('');
    expect(inodes(folder)).not.to.deep.equal(first);
  });

  it('are removed when a process is killed, by the next of another day', () => {
    const tmp = path.join(root, 'tmp');
    const [old, young] = ['tfjs-mamba2-programs-4194305-abcdef', 'tfjs-mamba2-programs-4194306-abcdef'];
    for (const name of [old, young]) fs.mkdirSync(path.join(tmp, name));
    fs.utimesSync(path.join(tmp, old), 1, 1);
    expect(start(path.join(root, 'kept')).stdout).to.equal(RIGHT);
    expect(left()).to.deep.equal([young]);
  });

  describe('on a full disk', () => {
    let disk: string;
    beforeEach(function () {
      disk = path.join(root, 'disk');
      fs.mkdirSync(disk);
      if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m,mode=0700', 'tmpfs', disk]).status !== 0) this.skip();
    });
    afterEach(() => void spawnSync('umount', [disk]));

    it('are done without, from the start or from the moment when it is full', () => {
      const folder = path.join(disk, 'kept');
      const kept = () => (fs.existsSync(folder) ? programs(folder).length : 0);
      expect(runs(folder, [path.join(disk, 'filler')])).to.match(/not kept in \S+ from now on: ENOSPC/);
      expect(kept()).to.equal(1);
      expect(runs(folder)).to.match(/not kept in \S+ from now on: ENOSPC/);
      expect(kept()).to.equal(1);
      fs.rmSync(path.join(disk, 'filler'));
      expect(runs(folder)).to.equal('');
      expect(kept()).to.equal(COUNT);
    });

    it('of temporary files: another place is found, and memory is not blamed', () => {
      fs.writeFileSync(path.join(disk, 'filler'), Buffer.alloc((1 << 20) - 4096));
      const { stdout, stderr } = start(path.join(root, 'kept'), [], { TMPDIR: disk });
      if (fs.existsSync('/dev/shm')) expect(stdout, stderr).to.equal(RIGHT);
      expect(stderr).not.to.match(/not enough memory/);
    });
  });
});

/** The runtimes that tests run with. */
const runtimes = path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'tfjs-mamba2', 'runtime');
