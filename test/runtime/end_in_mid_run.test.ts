import { expect } from 'chai';
import { ends, WAYS, type Way } from '../support/end_in_mid_run.js';

/** Exit code and signal of each way. */
const EXPECTED: Record<Way, readonly [number | null, string | null]> = {
  itself: [0, null],
  exit: [3, null],
  error: [1, null],
  SIGTERM: [null, 'SIGTERM'],
};

for (const way of WAYS)
  it(`a process that ends in the middle of a run, by ${way}, neither crashes nor hangs`, function () {
    this.timeout(240_000);
    for (const { status, signal, stderr } of ends(way, [30])) {
      expect([status, signal], stderr).to.deep.equal(EXPECTED[way]);
      if (way === 'error') expect(stderr).to.include('thrown on purpose');
      else expect(stderr).to.equal('');
    }
  });
