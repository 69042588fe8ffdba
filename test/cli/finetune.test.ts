/** `mamba2 finetune` as a user runs it. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { withLock } from '../../src/base/lock.js';
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

  it('tells the result as JSON', async () => {
    const output = path.join(dir, 'json');
    const as = [...model, ...small, '--eval-share', '0.1', '--max-steps', '1', '--text-field', 'quote', '--lora', '2'];
    const run = await finetune(...as, '--prompt', 'The', '--json', '--output', output);
    expect([run.code, run.err]).to.deep.equal([0, '']);
    const { text_before, text_after, ...made } = JSON.parse(run.out) as Record<string, number | string | null>;
    expect([text_before, text_after].every((text) => String(text).startsWith('The'))).to.equal(true);
    expect(made).to.include({ output_dir: output, global_step: 1, stopped_by: null });
    expect(made.adapter).to.equal(path.join(output, 'adapter'));
    for (const key of ['training_loss', 'eval_loss_before', 'eval_loss_after', 'seconds', 'tokens_per_second'])
      expect(made[key], key).to.be.a('number').above(0);
  });

  it('into a folder where another run trains is refused before the model is loaded, and says who trains there', async () => {
    const output = path.join(dir, 'held');
    await withLock(path.join(output, '.training.lock'), async () => {
      // there is no such model: whoever asks for it first would say so
      const run = await finetune('--model', 'no-such-model', '--train', 'examples/quotes.jsonl', '--output', output);
      expect([run.code, run.out]).to.deep.equal([1, '']);
      expect(run.err).to.match(new RegExp(`process ${process.pid} trains into this folder already`));
      expect(run.err).to.include('--output');
    });
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
