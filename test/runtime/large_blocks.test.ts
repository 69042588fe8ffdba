/**
 * Large blocks of TensorFlow's come in large pages and go back to the system in pieces (native/large_blocks.cc), and sessions go on threads of their
 * own. In a process without oneDNN's operations, whose allocator keeps what it once had.
 */
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';

interface Measured {
  /** what the function gave */
  values: number[];
  /** blocks that went in pieces: at first, after a run, after another on JavaScript's thread, at the end of a session */
  dropped: number[];
  /** bytes for which large pages were asked: at first, after runs that keep 40 MB, with another 40 MB that JavaScript's thread made */
  advised: number[];
  /** bytes that the process holds: before a session is closed and after */
  held: number[];
}

describe('memory of TensorFlow', function () {
  this.timeout(60_000);
  let measured: Measured;
  before(function () {
    if (process.platform !== 'linux') this.skip();
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      ['--import=tsx', '--no-warnings', 'test/support/blocks_run.ts'],
      { encoding: 'utf8', env: { ...process.env, TF_ENABLE_ONEDNN_OPTS: '0' } },
    );
    expect(status, stderr).to.equal(0);
    measured = JSON.parse(stdout) as Measured;
  });

  it('goes in pieces where blocks are large, after a run and with a session', () => {
    const { values, dropped } = measured;
    expect(values).to.deep.equal([5, 9, 14]);
    for (let i = 1; i < dropped.length; i++)
      expect(dropped[i], `dropped ${dropped.join()}`).to.be.above(dropped[i - 1]!);
  });

  it('goes with a session that is closed, without a wait', () => {
    const [before, after] = measured.held;
    expect(after).to.be.lessThan(before! - 30e6);
  });

  it('is asked for in large pages where the system knows such', function () {
    if (!fs.existsSync('/sys/kernel/mm/transparent_hugepage/enabled')) this.skip();
    const [before, after, late] = measured.advised;
    expect(after! - before!).to.be.above(36e6);
    expect(late, 'a start looks for no large pages').to.equal(after);
  });
});
