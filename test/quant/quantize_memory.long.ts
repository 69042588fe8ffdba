/** Quantising a checkpoint of 5 GB in a process that may not hold 2 GB. Takes minutes and 7 GB of disk. */
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { publicConfig, writeRandomCheckpoint } from '../../bench/random_checkpoint.js';
import { openCheckpoint } from '../../src/models/checkpoints.js';

/** A size of bench/random_checkpoint.ts. */
const SIZE = process.env.MAMBA2_LONG_SIZE ?? '2.7b';
const LIMIT_KB = 2_000_000;

describe(`quantising mamba2-${SIZE} in less than 2 GB`, function () {
  this.timeout(3_600_000);
  let dir = '';
  before(async function () {
    if (process.platform !== 'linux') return this.skip();
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'quantize-memory-'));
    await writeRandomCheckpoint(path.join(dir, 'float'), publicConfig(SIZE), 'BF16');
  });
  after(() => dir && fs.rmSync(dir, { recursive: true, force: true }));

  it('works, within the limit of the process and in resident memory', async () => {
    const [src, dst] = [path.join(dir, 'float'), path.join(dir, 'int4')];
    // data segments are limited by the shell; the peak of resident memory is what the kernel counted
    const code = `
      import { quantizeCheckpoint } from ${JSON.stringify(path.resolve('src/models/quantize.ts'))};
      import { Int4WeightOnlyConfig } from ${JSON.stringify(path.resolve('src/quant/config.ts'))};
      const config = new Int4WeightOnlyConfig({ include_input_output_embeddings: true });
      const { weights } = await quantizeCheckpoint(process.argv[1], process.argv[2], config);
      process.stdout.write(JSON.stringify({ weights: weights.length, peak: process.resourceUsage().maxRSS }));`;
    const command = `ulimit -d ${LIMIT_KB} && exec "$0" --max-old-space-size=512 --import tsx --input-type=module -e "$1" "$2" "$3"`;
    const run = spawnSync('bash', ['-c', command, process.execPath, code, src, dst], { encoding: 'utf8' });
    expect(run.stderr).to.equal('');
    const { weights, peak } = JSON.parse(run.stdout) as { weights: number; peak: number };
    expect(weights).to.equal(2 * publicConfig(SIZE).num_hidden_layers + 1);
    expect(peak).to.be.below(LIMIT_KB);
    const source = await openCheckpoint(dst);
    expect(source.config.quantization_config).to.be.an('object');
    await source.close();
  });
});
