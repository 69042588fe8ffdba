/** Twenty thousand requests of mixed kinds, or as many as LOAD_REQUESTS says. */
import { expect } from 'chai';
import { load, serverForLoad } from './load.js';

const REQUESTS = Number(process.env.LOAD_REQUESTS ?? 20_000);

describe('a server under much load', function () {
  this.timeout(3_600_000);
  const server = serverForLoad();

  it('gives every good request its own text, loses no row, does not grow, and answers probes at once', async () => {
    const report = await load(server(), REQUESTS);
    process.stdout.write(`      ${JSON.stringify(report)}\n`);
    expect(report.good).to.be.greaterThan(0.75 * REQUESTS);
    expect(report.refused).to.equal(0);
    // what a collector of garbage leaves for later
    expect(report.memory[1] - report.memory[0]).to.be.lessThan(0.1 * report.memory[0]);
    expect(report.health_p99).to.be.lessThan(50);
  });
});
