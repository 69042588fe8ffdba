import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { mamba2, type Result } from './support.js';

const version = (JSON.parse(fs.readFileSync('package.json', 'utf8')) as { version: string }).version;

describe('mamba2', function () {
  this.timeout(30000);
  let empty: string;
  before(() => (empty = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'))));
  after(() => fs.rmSync(empty, { recursive: true }));

  it('prints its version and its help on standard output', () => {
    expect(mamba2(['--version'])).to.deep.equal({ code: 0, out: `${version}\n`, err: '' });
    const help = mamba2(['--help']);
    expect(help.code).to.equal(0);
    expect(help.out).to.match(/setup .*\n[^]*env .*\n/);
    expect(mamba2(['env', '--help']).out).to.include('--device');
  });

  it('answers wrong usage with exit code 2, on standard error', () => {
    for (const [args, message] of [
      [[], 'Usage: mamba2'],
      [['dance'], "unknown command 'dance'"],
      [['env', '--colour'], "unknown option '--colour'"],
      [['env', '--device', 'tpu'], 'Allowed choices are auto, cpu, gpu'],
      [['generate', '--model', '.', '--dtype', 'foo', 'Once'], 'Allowed choices are auto, float32, bfloat16'],
      [['chat', '--model', '.', '--dtype', 'float16'], 'Allowed choices are auto, float32, bfloat16'],
    ] as const) {
      const { code, out, err } = mamba2(args);
      expect([code, out]).to.deep.equal([2, '']);
      expect(err).to.include(message);
    }
  });

  it('answers a failure with one line and exit code 1, the stack only with --debug', () => {
    const env = { XDG_CACHE_HOME: empty };
    const plain = mamba2(['env', '--device', 'tensorflow'], { env });
    expect(plain).to.deep.equal({
      code: 1,
      out: '',
      err: 'mamba2: The TensorFlow runtime is not set up. Run `npx mamba2 setup`.\n',
    });
    for (const args of [
      ['--debug', 'env', '--device', 'tensorflow'],
      ['env', '--device', 'tensorflow', '--debug'],
    ]) {
      expect(mamba2(args, { env }).err).to.match(/DeviceError: The TensorFlow[^\n]*\n\s+at /);
    }
  });

  it('env tells what is in use', () => {
    const { code, out, err } = mamba2(['env']);
    expect([code, err]).to.deep.equal([0, '']);
    expect(out).to.match(new RegExp(`^tfjs-mamba2 +${version.replaceAll('.', '\\.')}$`, 'm'));
    expect(out).to.match(/^TensorFlow +2\.\d+\.\d+ \(/m);
    expect(out).to.match(/^Backend +tensorflow, on the [CG]PU$/m);
    expect(out).to.match(/^GPU +\S/m);
  });

  it('env --json is JSON, and honest when nothing is set up', () => {
    const { code, out, err } = mamba2(['env', '--json'], { env: { XDG_CACHE_HOME: empty } });
    expect([code, err]).to.deep.equal([0, '']);
    const report = JSON.parse(out) as Record<string, unknown>;
    expect(report).to.include({ package: version, tensorflow: null, runtime: null, backend: 'wasm', device: 'cpu' });
    expect(report.node).to.equal(process.versions.node);
  });

  it('setup does nothing, quickly, when it is done', () => {
    const timed = (args: string[]): [number, Result] => {
      const start = Date.now();
      const result = mamba2(args);
      return [Date.now() - start, result];
    };
    const [starting] = timed(['--version']);
    const [time, { code, out }] = timed(['setup']);
    expect(code).to.equal(0);
    expect(out).to.match(/^TensorFlow \d+\.\d+\.\d+ \(.*\) is ready: \//);
    // a process starts, and little more
    expect(time).to.be.below(2 * starting + 500);
  });
});
