/** How much memory a process holds while it loads and runs a model of random weights: shared by the tests of one size and another. */
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { publicConfig, writeRandomCheckpoint } from '../../../bench/random_checkpoint.js';
import type { Phase, PhasesPlan } from '../../support/memory_phases.js';

/** What is held beside weights and states: the runtimes of Node.js and TensorFlow, compiled programs, inputs and results. */
const REST = 0.6e9;

/** Phases of a process of its own. */
function phasesOf(plan: PhasesPlan): Phase[] {
  const child = path.resolve('test/support/memory_phases.ts');
  const run = spawnSync(process.execPath, ['--import', 'tsx', child, JSON.stringify(plan)], { encoding: 'utf8' });
  expect(run.stderr).to.equal('');
  return run.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Phase);
}

/** Tests of a size. */
export function memoryTests(size: string, variants: readonly (Omit<PhasesPlan, 'dir'> & { title: string })[]): void {
  describe(`memory of a process with mamba2-${size}`, function () {
    this.timeout(3_600_000);
    const config = publicConfig(size);
    let dir = '';
    before(async function () {
      if (process.platform !== 'linux') return this.skip();
      dir = fs.mkdtempSync(path.join(os.tmpdir(), 'memory-'));
      await writeRandomCheckpoint(dir, config, 'BF16');
    });
    after(() => dir && fs.rmSync(dir, { recursive: true, force: true }));

    for (const { title, ...plan } of variants)
      it(`is at most the weights, the states and a bounded rest in every phase: ${title}`, () => {
        const file = fs.statSync(path.join(dir, 'model.safetensors')).size;
        const channels = config.num_heads * config.head_dim + 2 * config.n_groups * config.state_size;
        const ofRow =
          4 * config.num_hidden_layers * (config.num_heads * config.head_dim * config.state_size + 3 * channels);
        const most = 1.15 * file + (1 + (plan.rows ?? 0)) * ofRow + REST;
        // the first process compiles, and XLA's compiler takes what it takes
        phasesOf({ ...plan, dir });
        for (const { phase, peak } of phasesOf({ ...plan, dir })) expect(peak, phase).to.be.at.most(most);
      });
  });
}
