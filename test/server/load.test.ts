/** A few hundred requests of mixed kinds at once; load.long.ts has twenty thousand. */
import { expect } from 'chai';
import { load, serverForLoad } from './load.js';

describe('a server under load', function () {
  this.timeout(300_000);
  const server = serverForLoad();

  it('gives every good request its own text, and loses no row', async () => {
    const report = await load(server(), 200);
    expect(report.good + report.aborted + report.malformed).to.equal(200);
    expect(report.refused).to.equal(0);
    expect(Math.min(report.aborted, report.malformed)).to.be.greaterThan(10);
  });
});
