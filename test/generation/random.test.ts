import { expect } from 'chai';
import { RandomStream } from '../../src/generation/index.js';

describe('RandomStream', () => {
  const take = (stream: RandomStream, n: number): number[] => Array.from({ length: n }, () => stream.uniform());

  it("is xoshiro128** 1.1: the published generator's first numbers from the state 1, 2, 3, 4", () => {
    const stream = new RandomStream(0, 0);
    (stream as unknown as { s: Uint32Array }).s.set([1, 2, 3, 4]);
    const published = [11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849];
    expect(take(stream, 8).map((u) => u * 2 ** 24)).to.deep.equal(published.map((x) => x >>> 8));
  });

  it('gives other numbers for every seed and stream, large seeds included', () => {
    const first = new Set<string>();
    const seeds = [0, 1, 2, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 33, 2 ** 52];
    for (const seed of seeds) for (let k = 0; k < 50; k++) first.add(take(new RandomStream(seed, k), 3).join());
    expect(first.size).to.equal(seeds.length * 50);
    expect(take(new RandomStream(7, 3), 5)).to.deep.equal(take(new RandomStream(7, 3), 5));
  });

  it('is even within and across streams', () => {
    const within = take(new RandomStream(5, 0), 20_000);
    const across = Array.from({ length: 20_000 }, (_, k) => new RandomStream(5, k).uniform());
    for (const numbers of [within, across]) {
      const bins = new Array<number>(20).fill(0);
      for (const u of numbers) {
        expect(u >= 0 && u < 1 && Math.fround(u) === u).to.equal(true);
        bins[Math.floor(u * 20)]!++;
      }
      const chi = bins.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
      expect(chi).to.be.below(43.8); // exceeded once in 1000, with 19 degrees of freedom
    }
  });
});
