import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { saveCheckpoint } from '../../src/checkpoints/index.js';
import { openCheckpoint } from '../../src/models/checkpoints.js';
import { expectedTensors } from '../../src/models/mamba2/checkpoint/shapes.js';
import { formatBytes, ProgressBar } from '../../src/cli/progress.js';
import { TINY_CONFIG, zeros } from '../support/checkpoint.js';
import { fixture } from '../support/goldens.js';
import { BIN, type Result, sharedMamba2 } from './support.js';

describe('mamba2 convert and inspect', function () {
  this.timeout(60_000);
  const shared = sharedMamba2();
  const mamba2 = (...args: string[]): Promise<Result> => shared(args);
  let dir = '';
  beforeEach(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cli-'))));
  afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

  it('converts a pickle and verifies it; the result says that it would load', async () => {
    const run = await mamba2(
      'convert',
      fixture('goldens/formats/state-spaces'),
      path.join(dir, 'out'),
      '--dtype',
      'bf16',
      '--verify',
    );
    expect(run.err)
      .to.match(/Wrote 20 tensors/)
      .and.match(/Verified: all 20 tensors are equal/);
    // not a terminal: no bar
    expect(run.err).to.not.include('\r');
    expect(run.code).to.equal(0);
    const look = await mamba2('inspect', path.join(dir, 'out'), '--tensors');
    expect(look.code).to.equal(0);
    expect(look.out).to.match(/Parameters +18,128/);
    expect(look.out).to.match(/backbone\.layers\.1\.mixer\.in_proj\.weight +BF16 \[168, 32\]/);
    expect(look.out)
      .to.match(/mixer\.D +F32 \[8\]/)
      .and.match(/It would load\./);
  });

  it('prints JSON, and says why a broken folder would not load', async () => {
    const good = JSON.parse((await mamba2('inspect', '--json', fixture('goldens/formats/single'))).out) as Record<
      string,
      unknown
    >;
    expect(good).to.include({ format: 'hf', parameters: 18_128 });
    const run = await mamba2('inspect', fixture('goldens/formats/broken/wrong-layers'));
    expect(run.code).to.equal(1);
    expect(run.out).to.match(/It would not load:\n- backbone\.layers\.1\.norm\.weight is missing/);
  });

  it('converts to a TensorFlow.js model and back, comparing tensors and logits', async () => {
    const [tfjs, back] = [path.join(dir, 'tfjs'), path.join(dir, 'back')];
    const there = await mamba2('convert', fixture('goldens/formats/mixed-dtype'), tfjs, '--format', 'tfjs', '--verify');
    expect(there.code, there.err).to.equal(0);
    expect(there.err)
      .to.match(/all 20 tensors are equal/)
      .and.match(/logits up to .* differ by 0\.0 at most/);
    expect((await mamba2('inspect', tfjs)).out).to.match(/It would load\./);
    expect((await mamba2('convert', tfjs, back)).code).to.equal(0);
    const original = path.join(fixture('goldens/formats/mixed-dtype'), 'model.safetensors');
    expect(fs.readFileSync(path.join(back, 'model.safetensors')).equals(fs.readFileSync(original))).to.equal(true);
  });

  it('packs to int4; the result would load, and is not converted again', async () => {
    const model = fileURLToPath(new URL('../../models/tiny-books-mamba2', import.meta.url));
    const out = path.join(dir, 'int4');
    const run = await mamba2('convert', model, out, '--quantize', 'int4', '--group-size', '64');
    expect(run.code, run.err).to.equal(0);
    expect(run.err).to.match(/Packed \d+ matrices to int4; 9\.5 MB became/);
    const look = await mamba2('inspect', out);
    expect(look.out)
      .to.match(/Quantised +torchao/)
      .and.match(/It would load\./);
    const parameters = /Parameters +([\d,]+)/.exec((await mamba2('inspect', model)).out)![1];
    expect(look.out).to.include(parameters);
    for (const format of ['hf', 'tfjs']) {
      const again = await mamba2('convert', out, path.join(dir, 'again'), '--format', format);
      expect(again.code).to.equal(1);
      expect(again.err).to.match(/is quantised/);
    }
    expect((await mamba2('convert', model, out, '--group-size', '64')).err).to.match(/goes with --quantize int4/);
    expect((await mamba2('convert', model, out, '--quantize', 'int4', '--dtype', 'float32')).code).to.equal(2);
  });

  it('refuses wrong usage with 2 and bad input with 1, leaving nothing', async () => {
    const dtype = await mamba2('convert', 'a', 'b', '--dtype', 'int3');
    expect(dtype.code).to.equal(2);
    expect(dtype.err).to.match(/Expected float32, bfloat16 or float16/);
    const broken = await mamba2(
      'convert',
      fixture('goldens/formats/broken/pickle-posix-system'),
      path.join(dir, 'out'),
    );
    expect(broken.code).to.equal(1);
    expect(broken.err).to.match(/posix\.system/);
    expect(fs.existsSync(path.join(dir, 'out'))).to.equal(false);
    const size = await mamba2(
      'convert',
      fixture('goldens/formats/single'),
      path.join(dir, 'out'),
      '--max-shard-size',
      'big',
    );
    expect(size.code).to.equal(1);
    expect(size.err).to.match(/--max-shard-size is "big"/);
  });

  for (const signal of ['SIGINT', 'SIGHUP'] as const)
    it(`stops at ${signal} and leaves no file that looks finished`, async () => {
      const big = { ...TINY_CONFIG, hidden_size: 512, num_heads: 256, vocab_size: 40_000, num_hidden_layers: 12 };
      const tensors = [...expectedTensors(big)].map(([name, shape]) => zeros(name, shape));
      await saveCheckpoint(path.join(dir, 'in'), big, tensors);
      const out = path.join(dir, 'out');
      const child = spawn(process.execPath, [BIN, 'convert', path.join(dir, 'in'), out, '--dtype', 'bfloat16']);
      let stderr = '';
      child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
      // as soon as weights are being written
      while (child.exitCode === null && !(fs.existsSync(out) && fs.readdirSync(out).length > 0))
        await new Promise((resolve) => setTimeout(resolve, 2));
      child.kill(signal);
      const [code] = (await once(child, 'exit')) as [number];
      expect(stderr).to.match(/Interrupted/);
      expect(code).to.equal(1);
      expect(fs.readdirSync(out)).to.deep.equal([]);
    });

  it('runs as a script too', () => {
    const script = fileURLToPath(new URL('../../scripts/convert_hf_checkpoint.ts', import.meta.url));
    const src = fixture('goldens/formats/codestral-native');
    const args = ['--import', 'tsx', script, src, path.join(dir, 'out'), '--max-shard-size', '100kB'];
    const run = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect(run.status, run.stderr).to.equal(0);
    return openCheckpoint(path.join(dir, 'out')).then(async (copy) => {
      expect(copy.config).to.include({ model_type: 'mamba2', n_groups: 2 });
      await copy.close();
    });
  });
});

describe('the progress bar', () => {
  it('is drawn on a terminal only, and taken away', () => {
    const drawn: string[] = [];
    const stream = (isTTY: boolean): NodeJS.WriteStream =>
      ({ isTTY, columns: 100, write: (text: string) => drawn.push(text) }) as unknown as NodeJS.WriteStream;
    const hidden = new ProgressBar('Converting', stream(false));
    hidden.update(1, 2);
    hidden.end();
    expect(drawn).to.deep.equal([]);
    const bar = new ProgressBar('Converting', stream(true));
    bar.update(500_000, 1_000_000);
    bar.update(500_001, 1_000_000);
    bar.update(1_000_000, 1_000_000);
    bar.end();
    expect(drawn).to.have.length(3);
    expect(drawn[0]).to.match(/^\rConverting \[#{15} {15}\] {2}50 % {2}500 kB of 1\.0 MB/);
    expect(drawn[1]).to.include('100 %');
    expect(drawn[2]).to.equal('\r\x1b[K');
  });

  it('speaks of bytes in units of 1000', () => {
    expect([0, 999, 1000, 9_551_234, 999_600, 14_570_807_296].map(formatBytes)).to.deep.equal([
      '0 B',
      '999 B',
      '1.0 kB',
      '9.6 MB',
      '1.0 MB',
      '14.6 GB',
    ]);
  });
});
