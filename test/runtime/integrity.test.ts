import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { closeToWriters, damageOf, noteFiles } from '../../src/runtime/integrity.js';
import { setupRuntime } from '../../src/runtime/setup.js';
import { addonPath, packageDir, runtimeDir } from '../../src/runtime/paths.js';

const CODE = `
import * as tf from '@tensorflow/tfjs';
import { loadTensorFlow, hostKernels } from ${JSON.stringify(path.resolve('src/runtime/index.ts'))};
loadTensorFlow('cpu');
process.stdout.write([(await tf.add([1, 2], [3, 4]).data()).join(), hostKernels().length > 0].join(' '));
`;

describe('a runtime folder', function () {
  this.timeout(60_000);
  let root: string;
  let runtime: string;
  let script: string;
  before(() => {
    script = path.resolve(`test/runtime/.integrity-${process.pid}.mts`);
    fs.writeFileSync(script, CODE);
  });
  after(() => fs.rmSync(script));
  /** A copy of the runtime in use, as set-up leaves one: links to its files, so that a test replaces what it damages. */
  beforeEach(() => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'));
    const used = runtimeDir('cpu')!;
    runtime = path.join(root, 'tfjs-mamba2', 'runtime', path.basename(used));
    fs.mkdirSync(path.dirname(runtime), { recursive: true });
    const { status, stderr } = spawnSync('cp', ['-al', used, runtime], { encoding: 'utf8' });
    expect(status, stderr).to.equal(0);
    for (const name of ['files.json', 'runtime.json']) {
      const text = fs.existsSync(path.join(runtime, name)) && fs.readFileSync(path.join(runtime, name));
      fs.rmSync(path.join(runtime, name), { force: true });
      if (text) fs.writeFileSync(path.join(runtime, name), text);
    }
  });
  afterEach(() => fs.rmSync(root, { recursive: true, force: true }));

  const addon = (): string => addonPath(runtime);
  const kernels = (): string => path.join(path.dirname(addon()), 'host_kernels.node');
  const library = (): string => path.join(packageDir(runtime), 'deps', 'lib', 'libtensorflow_framework.so.2');
  const notes = (): string => path.join(runtime, 'files.json');

  /** A file of the copy's own, with other bytes. */
  function change(file: string, make: (bytes: Buffer) => Buffer): void {
    const bytes = make(fs.readFileSync(file));
    fs.rmSync(file);
    fs.writeFileSync(file, bytes, { mode: 0o755 });
  }
  const half = (bytes: Buffer): Buffer => bytes.subarray(0, bytes.length >> 1);
  const zeroed = (bytes: Buffer): Buffer => Buffer.from(bytes).fill(0, bytes.length >> 1, (bytes.length >> 1) + 512);

  function load(env: Record<string, string> = {}): { out: string; err: string; ended: number | NodeJS.Signals | null } {
    const { stdout, stderr, status, signal } = spawnSync(process.execPath, ['--import', 'tsx', script], {
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '', TFJS_MAMBA2_RUNTIME: '', XDG_CACHE_HOME: root, ...env },
    });
    return { out: stdout, err: stderr, ended: signal ?? status };
  }
  const fine = { out: `4,6 ${fs.existsSync('/proc/cpuinfo')}`, err: '', ended: 0 };

  it('is loaded when it is whole, also one of which nothing was noted; that is noted then', () => {
    fs.rmSync(notes(), { force: true });
    expect(load()).to.deep.equal(fine);
    expect(Object.keys(JSON.parse(fs.readFileSync(notes(), 'utf8')) as object)).to.include.members(
      [addon(), kernels(), library()].map((file) => path.relative(runtime, file)),
    );
    expect(load()).to.deep.equal(fine);
  });

  for (const noted of [true, false])
    it(`is an error when an addon or a library of it was cut, ${noted ? 'by what is noted' : 'where nothing is noted'}`, () => {
      if (noted) noteFiles(runtime);
      else fs.rmSync(notes(), { force: true });
      for (const file of [addon(), library()]) {
        const whole = fs.readFileSync(file);
        for (const cut of [half, () => Buffer.alloc(0), () => whole.subarray(0, whole.length - 100)]) {
          change(file, () => cut(whole));
          const { needed } = damageOf(runtime);
          expect(needed.join(), file).to.match(new RegExp(`^${path.basename(file)} (has|is no library)`));
        }
        change(file, () => half(whole));
        const { out, err, ended } = load();
        expect({ out, ended }, err).to.deep.equal({ out: '', ended: 1 });
        expect(err).to.match(/DeviceError: The TensorFlow runtime in \S+ is not used: /);
        expect(err)
          .to.include(`${path.basename(file)} has`)
          .and.to.include('npx mamba2 setup --force');
        change(file, () => whole);
      }
      expect(fs.existsSync(notes()), 'nothing damaged is noted').to.equal(noted);
    });

  it('is an error when bytes of it are others, which a new time tells', () => {
    noteFiles(runtime);
    for (const file of [addon(), library(), path.join(packageDir(runtime), 'dist', 'index.js')]) {
      const whole = fs.readFileSync(file);
      change(file, zeroed);
      expect(damageOf(runtime).needed).to.deep.equal([
        `${path.basename(file)} is not what set-up made (its hash is another)`,
      ]);
      change(file, () => whole);
    }
    expect(damageOf(runtime)).to.deep.equal({ needed: [], optional: new Map() });
    fs.rmSync(addon());
    expect(damageOf(runtime).needed).to.deep.equal(['tfjs_binding.node is missing']);
  });

  it('is loaded without kernels of our own that are broken, with one line', () => {
    noteFiles(runtime);
    for (const damage of [half, zeroed, () => Buffer.from('no library')]) {
      const whole = fs.readFileSync(kernels());
      change(kernels(), damage);
      const { out, err, ended } = load();
      expect({ out, ended }, err).to.deep.equal({ out: '4,6 false', ended: 0 });
      expect(err.match(/Warning:.*/g)).to.have.length(1);
      expect(err).to.match(/host_kernels\.node in \S+ is left out, since it (has|is not)/);
      change(kernels(), () => whole);
    }
  });

  it('is read again only when a time has changed, and noted anew then', () => {
    noteFiles(runtime);
    const before = fs.readFileSync(notes(), 'utf8');
    const whole = fs.readFileSync(addon());
    change(addon(), () => whole);
    fs.utimesSync(addon(), 1, 1);
    expect(damageOf(runtime).needed).to.deep.equal([]);
    const after = fs.readFileSync(notes(), 'utf8');
    expect(after).not.to.equal(before);
    expect(damageOf(runtime).needed).to.deep.equal([]);
    expect(fs.readFileSync(notes(), 'utf8')).to.equal(after);
  });

  it('is made anew by set-up when it is damaged', async () => {
    noteFiles(runtime);
    change(addon(), half);
    const [lines, usual]: [string[], string | undefined] = [[], process.env.XDG_CACHE_HOME];
    process.env.XDG_CACHE_HOME = root;
    const set = setupRuntime({ python: 'no-python', onStep: (line) => lines.push(line) });
    const failed = set.then(
      () => 'not made anew',
      (error: Error) => error.message,
    );
    expect(await failed).to.match(/no-python was not found/);
    if (usual === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = usual;
    expect(lines[0]).to.match(/^the runtime is damaged and made anew: tfjs_binding.node has \d+ bytes, expected \d+$/);
  });

  it('is not used where others may write, or where it is theirs, unless it is named', () => {
    fs.chmodSync(runtime, 0o777);
    expect(load().err).to.match(/is not used: it may be written by others.*TFJS_MAMBA2_RUNTIME if you trust it/);
    expect(load({ TFJS_MAMBA2_RUNTIME: runtime })).to.deep.equal(fine);
    closeToWriters(runtime);
    expect(load()).to.deep.equal(fine);
    if (process.geteuid?.() !== 0) return; // nobody else can give folders away
    fs.chownSync(runtime, 12345, 12345);
    expect(load().err).to.match(/is not used: it belongs to the user 12345, and this is 0/);
  });
});
