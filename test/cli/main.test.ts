import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import { ArgumentError } from '../../src/base/errors.js';
import { inFlags } from '../../src/cli/flags.js';
import { buildProgram } from '../../src/cli/main.js';
import { BIN, mamba2, type Result } from './support.js';

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
      [['env', '--device', 'tpu'], 'Expected one of auto, cpu, gpu'],
      [['generate', '--model', '.', '--dtype', 'foo', 'Once'], "Expected 'auto', 'float32' or 'bfloat16'"],
      [['chat', '--model', '.', '--dtype', 'fp16'], 'nothing is computed in float16'],
      [['chat', '--model', '.', '--torch-dtype', 'F16'], 'nothing is computed in float16'],
      [
        ['generate', '--model', '.', '--max_new_tokens', '5'],
        "unknown option '--max_new_tokens'. Use --max-new-tokens.",
      ],
      [['generate', '--model', '.', '--torch_dtype=bf16'], "unknown option '--torch_dtype'. Use --torch-dtype."],
      [['generate', '--model', '.', '--max-length', '5'], 'Use --max-new-tokens'],
      [['chat', '--model', '.', '--device-map', 'many'], "Expected 'auto', 'balanced'"],
      [['chat', '--model', '.', '--device-map', '{x'], 'Expected JSON'],
      [['chat', '--model', '.', '--max-memory', '10GB'], 'such as 0=10GB,1=20GB'],
      [['chat', '--model', '.', '--tensor-parallel', 'all'], 'Expected a whole number from 1'],
      [['run', '--model', '.', '--load-in-4bit'], 'mamba2 quantize SRC DST --bits 4'],
      [['finetune', '--model', '.', '--lora_r', '8'], 'Use --lora'],
      [['finetune', '--model', '.', '--output_dir', 'x'], 'Use --output.'],
      [['run', '--model', '.', '--token', 'hf_x'], 'set HF_TOKEN'],
      [['run', '--model', '.', '--temprature', '1'], 'Did you mean --temperature?'],
    ] as const) {
      const { code, out, err } = mamba2(args);
      expect([code, out]).to.deep.equal([2, '']);
      expect(err).to.include(message);
    }
  });

  it('ends cleanly where its output or its files cannot be opened', function () {
    const run = (line: string): Result => {
      const { status, stdout, stderr } = spawnSync('bash', ['-c', line], { encoding: 'utf8' });
      return { code: status, out: stdout, err: stderr };
    };
    const node = `'${process.execPath}' '${BIN}'`;
    if (!fs.existsSync('/dev/full')) this.skip();
    expect(run(`${node} env --device js > /dev/full`)).to.deep.equal({
      code: 1,
      out: '',
      err: 'mamba2: Standard output cannot be written: there is no space left on the device.\n',
    });
    expect(run(`ulimit -n 20; ${node} env --device js`)).to.deep.equal({
      code: 1,
      out: '',
      err: 'mamba2: Too many open files: the limit (`ulimit -n`) is too low. Raise it to 1024 or more.\n',
    });
    const { code, err } = run(`set -o pipefail; ${node} --help | true`);
    expect([code, err]).to.deep.equal([0, '']);
  });

  it('speaks of flags where functions speak of options', () => {
    const program = buildProgram();
    const command = (name: string): Command => program.commands.find((each) => each.name() === name)!;
    const told = (name: string, message: string, option?: string): string =>
      inFlags(new ArgumentError(message, option === undefined ? {} : { option }), command(name));
    expect(told('generate', 'generate(): max_new_tokens is 0; expected an integer.', 'max_new_tokens')).to.equal(
      '--max-new-tokens is 0; expected an integer.',
    );
    expect(told('run', 'from_pretrained(): device is "x"; a device is needed.', 'device')).to.equal(
      '--device is "x"; a --device is needed.',
    );
    expect(told('run', 'The device has no room.')).to.equal('The device has no room.');
    expect(told('run', 'Could not write /a/max_new_tokens or "top_k".', 'top_k')).to.include(
      '/a/max_new_tokens or "top_k"',
    );
    expect(told('finetune', 'per_device_train_batch_size is 0', 'per_device_train_batch_size')).to.equal(
      '--batch-size is 0',
    );
    expect(told('finetune', 'grad_norm is odd')).to.equal('grad_norm is odd');
  });

  it('loads as the page on transformers says: --device 0 is a GPU', () => {
    const { code, err } = mamba2([
      'run',
      '--task',
      'text-generation',
      '--model',
      'tiny-books-mamba2',
      '--device',
      '0',
      'Once',
    ]);
    // without a GPU an error of the device, not of the command
    if (code !== 0) expect(err).to.match(/^mamba2: device 'gpu' cannot be used/);
    const same = mamba2(['run', '--model', 'tiny-books-mamba2', '--dtype', 'float32', '--torch-dtype', 'bf16', 'Once']);
    expect([same.code, same.err]).to.deep.equal([
      1,
      'mamba2: --torch-dtype is "bf16", and --dtype is another: they are one option by two names, so pass either.\n',
    ]);
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
