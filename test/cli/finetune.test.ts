/** `mamba2 finetune` as a user runs it. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { listCheckpoints } from '../../src/training/index.js';
import { type Result, sharedMamba2 } from './support.js';

describe('mamba2 finetune', function () {
  this.timeout(240_000);
  const shared = sharedMamba2();
  const finetune = (...args: string[]): Promise<Result> => shared(['finetune', ...args]);
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

  it('trains an adapter, merges it, and goes on from its checkpoint', async () => {
    const output = path.join(dir, 'lora');
    const run = await finetune(
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
    expect(run.err).to.equal('');
    expect(run.code).to.equal(0);
    expect(run.out).to.match(/updates +2\ntraining loss +\d.*before +"The.*after +"The.*merged model/s);
    expect(fs.readdirSync(path.join(output, 'adapter')).sort()).to.deep.equal([
      'adapter_config.json',
      'adapter_model.safetensors',
    ]);
    expect(fs.readdirSync(path.join(output, 'merged'))).to.include.members([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
    const more = await finetune(
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
    expect(more.code).to.equal(0);
    expect(listCheckpoints(output).map((c) => c.step)).to.deep.equal([2, 3]);
    const steps = fs
      .readFileSync(path.join(output, 'log.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { step: number }).step);
    expect(steps).to.deep.equal([2, 3]);
  });

  it('asks which text is meant, and names a file that is not there', async () => {
    const which = await finetune(...model, ...small, '--output', dir);
    expect([which.code, which.err]).to.deep.equal([
      1,
      "mamba2: The examples have no 'text'; say which of quote, author with --text-field.\n",
    ]);
    const none = await finetune('--model', 'models/tiny-books-mamba2', '--train', 'none.jsonl');
    expect([none.code, none.err]).to.deep.equal([1, 'mamba2: There is no file none.jsonl\n']);
    expect((await finetune(...model, '--lora', '0')).code).to.equal(2);
  });
});
