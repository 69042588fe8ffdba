import { expect } from 'chai';
import { ends } from '../support/end_in_mid_run.js';

it('a hundred processes that end in the middle of a run neither crash nor hang', function () {
  this.timeout(3_600_000);
  // from the first compilation on to the last of three runs
  const delays = Array.from({ length: 34 }, (_, i) => 12 * i);
  const all = [...ends('exit', delays), ...ends('error', delays), ...ends('SIGTERM', delays.slice(2))];
  const wrong = all.filter(
    ({ status, signal, stderr }) =>
      !(status === 3 || status === 1 || signal === 'SIGTERM') || (status !== 1 && stderr !== ''),
  );
  expect(wrong).to.deep.equal([]);
  expect(all).to.have.length(100);
});
