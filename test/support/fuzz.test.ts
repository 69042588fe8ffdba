import { expect } from 'chai';
import { endFuzz, fuzz, fuzzKinds } from './fuzz.js';

const MODULE = new URL('fuzz_example.ts', import.meta.url);

describe('a reader of damaged files', function () {
  this.timeout(60_000);
  after(() => endFuzz(MODULE));

  const report = (target: string, count = 6) => fuzz(MODULE, target, { count, limit: 500 });

  it('is known by name, and its files are counted', async () => {
    expect(await fuzzKinds(MODULE)).to.include.members(['sound', 'endless']);
    const { accepted, refused, faults, memory } = await report('sound');
    expect({ accepted, refused, faults }).to.deep.equal({ accepted: 3, refused: 3, faults: [] });
    expect(memory).to.be.above(1e7).and.below(5e8);
  });

  it('gives errors that are not ours as faults, awaited or not, and goes on', async () => {
    for (const [target, detail] of [
      ['foreign', /TypeError: not ours/],
      ['stray', /RangeError: awaited by nobody/],
    ] as const) {
      const { accepted, refused, faults } = await report(target);
      expect([accepted, refused], target).to.deep.equal([2, 3]);
      expect(faults.map(({ index, kind }) => [index, kind])).to.deep.equal([[2, 'foreign error']]);
      expect(faults[0]!.detail, 'what was done to the file stands before it').to.match(/^\w+ at \d.*: /);
      expect(faults[0]!.detail).to.match(detail);
    }
  });

  it('that dies, computes for ever or waits for ever ends at that file, and another process takes the rest', async () => {
    for (const [target, kind] of [
      ['abort', 'abort'],
      ['endless', 'hang'],
      ['asleep', 'hang'],
    ] as const) {
      const { accepted, refused, faults } = await report(target, 5);
      // two files before the fault, and two of the new process, which has not met its third
      expect([accepted, refused], target).to.deep.equal([2, 2]);
      expect(faults.map((fault) => [fault.index, fault.kind])).to.deep.equal([[2, kind]]);
    }
  });

  it('is told how much memory it took', async () => {
    expect((await report('large')).memory).to.be.above(5e8);
  });
});
