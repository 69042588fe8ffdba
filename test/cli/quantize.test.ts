/** `mamba2 quantize` as a user runs it. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { sharedMamba2 } from './support.js';

const MODEL = 'models/tiny-books-mamba2';

describe('mamba2 quantize', function () {
  this.timeout(120_000);
  const mamba2 = sharedMamba2();
  let dir = '';
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'quantize-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

  it('writes a folder that generates, and reports the error of every weight', async () => {
    const out = path.join(dir, 'out');
    const run = await mamba2(['quantize', MODEL, out, '--report', '--skip', 'layers.0']);
    expect(run.err).to.match(/Quantised 14 matrices; 3 matrices stay in float .* 9\.5 MB became/);
    expect(run.err).to.not.include('\r');
    expect(run.code).to.equal(0);
    expect(run.out).to.match(/layers\.1\.mixer\.in_proj\.weight +\[1288, 256\] +4\.25 bits +error \d\.\d\d %/);
    expect(run.out).to.match(/embeddings\.weight +left in float: include_input_output_embeddings is false/);
    expect(run.out).to.match(/layers\.0\.mixer\.out_proj\.weight +left in float: modules_to_not_convert has layers\.0/);
    const text = await mamba2([
      'generate',
      '--model',
      out,
      '--max-new-tokens',
      '5',
      '--engine',
      'eager',
      'Once upon a time',
    ]);
    expect(text.err).to.equal('');
    expect(text.out.length).to.be.greaterThan(10);
  });

  it('prints JSON', async () => {
    const run = await mamba2(['quantize', MODEL, path.join(dir, 'out'), '--bits', '8', '--json']);
    const { weights, skipped } = JSON.parse(run.out) as { weights: { relative_error: number }[]; skipped: unknown[] };
    expect(weights).to.have.length(16);
    expect(skipped).to.have.length(1);
    for (const { relative_error } of weights) expect(relative_error).to.be.within(0.001, 0.02);
  });

  it('refuses wrong usage, its own result and its own folder in one line', async () => {
    expect((await mamba2(['quantize', MODEL, path.join(dir, 'a'), '--group-size', '48'])).code).to.equal(2);
    const out = path.join(dir, 'out');
    expect((await mamba2(['quantize', MODEL, out])).code).to.equal(0);
    for (const [args, message] of [
      [[out, path.join(dir, 'b')], /quantised already/],
      [[out, out], /is the folder to be quantised/],
      [[path.join(dir, 'none'), path.join(dir, 'b')], /none is not a folder/],
      [[MODEL, path.join(dir, 'b'), '--skip', 'proj*', 'in_proj', 'out_proj'], /Nothing to quantise/],
    ] as const) {
      const run = await mamba2(['quantize', ...args]);
      expect(run.code).to.equal(1);
      expect(run.err).to.match(message);
      expect(run.err).to.not.match(/\n +at /);
    }
    expect(fs.existsSync(path.join(dir, 'b'))).to.equal(false);
  });
});
