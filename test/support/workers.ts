import { spawnSync } from 'node:child_process';
import { expect } from 'chai';

/** Workers in a process of their own, or the process alone and then process.exit(): their texts. @throws AssertionError unless the process ends well and says nothing on stderr */
export function workers(kind: 'one' | 'busy' | 'exit'): string[] {
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', 'tsx', 'test/support/worker_run.ts', kind],
    { encoding: 'utf8', env: { ...process.env, TFJS_MAMBA2_NATIVE: '1', NODE_NO_WARNINGS: '1' } },
  );
  expect(stderr).to.equal('');
  expect({ status, signal }).to.deep.equal({ status: 0, signal: null });
  return JSON.parse(stdout) as string[];
}
