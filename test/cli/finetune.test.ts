/** `mamba2 finetune` as a user runs it. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { listCheckpoints } from '../../src/training/index.js';

function mamba2(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, ['bin/mamba2.js', 'finetune', ...args], { encoding: 'utf8' });
}

describe('mamba2 finetune', function () {
  this.timeout(240_000);
  const model = ['--model', 'models/tiny-books-mamba2', '--train', 'examples/quotes.jsonl'];
  const small = [
    '--max-steps',
    '2',
    '--max-length',
    '16',
    '--batch-size',
    '2',
    '--eval-share',
    '0',
    '--engine',
    'eager',
  ];
  let dir: string;
  before(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'finetune-'))));
  after(() => fs.rmSync(dir, { recursive: true }));

  it('trains an adapter, merges it, and goes on from its checkpoint', () => {
    const output = path.join(dir, 'lora');
    const run = mamba2(
      ...model,
      ...small,
      '--text-field',
      'quote',
      '--lora',
      '2',
      '--merge',
      '--prompt',
      'The',
      '--save-steps',
      '2',
      '--output',
      output,
    );
    expect(run.stderr).to.equal('');
    expect(run.status).to.equal(0);
    expect(run.stdout).to.match(/updates +2\ntraining loss +\d.*before +"The.*after +"The.*merged model/s);
    expect(fs.readdirSync(path.join(output, 'adapter')).sort()).to.deep.equal([
      'adapter_config.json',
      'adapter_model.safetensors',
    ]);
    expect(fs.readdirSync(path.join(output, 'merged'))).to.include.members([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
    const more = mamba2(
      ...model,
      ...small,
      '--max-steps',
      '3',
      '--text-field',
      'quote',
      '--lora',
      '2',
      '--resume',
      '--save-steps',
      '1',
      '--output',
      output,
    );
    expect(more.status).to.equal(0);
    expect(listCheckpoints(output).map((c) => c.step)).to.deep.equal([2, 3]);
    const steps = fs
      .readFileSync(path.join(output, 'log.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { step: number }).step);
    expect(steps).to.deep.equal([2, 3]);
  });

  it('asks which text is meant, and names a file that is not there', () => {
    const which = mamba2(...model, ...small, '--output', dir);
    expect([which.status, which.stderr]).to.deep.equal([
      1,
      "mamba2: The examples have no 'text'; say which of quote, author with --text-field.\n",
    ]);
    const none = mamba2('--model', 'models/tiny-books-mamba2', '--train', 'none.jsonl');
    expect([none.status, none.stderr]).to.deep.equal([1, 'mamba2: There is no file none.jsonl\n']);
    expect(mamba2(...model, '--lora', '0').status).to.equal(2);
  });
});
