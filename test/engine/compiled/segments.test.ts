import { expect } from 'chai';
import { callTokens, segmentFor } from '../../../src/engine/compiled/segments.js';

describe('segmentFor', () => {
  const segments = [16, 64, 256, 512];
  const plan = (length: number): number[] => {
    const taken: number[] = [];
    for (let left = length; left > 0; left -= taken.at(-1)!) taken.push(segmentFor(left, segments));
    return taken;
  };

  it('fills segments, and masks the last', () => {
    expect(plan(1)).to.deep.equal([16]);
    expect(plan(16)).to.deep.equal([16]);
    expect(plan(17)).to.deep.equal([16, 16]);
    expect(plan(44)).to.deep.equal([64]);
    expect(plan(257)).to.deep.equal([256, 16]);
    expect(plan(300)).to.deep.equal([256, 64]);
    expect(plan(512)).to.deep.equal([512]);
    expect(plan(1100)).to.deep.equal([512, 512, 64, 16]);
  });

  it('prefers fewer calls on a GPU', () => {
    const gpu = [16, 128, 2048];
    const alone = callTokens(1, true);
    expect([10, 64, 128].map((left) => segmentFor(left, gpu, alone))).to.deep.equal([16, 128, 128]);
    expect([10, 64, 1500].map((left) => segmentFor(left, gpu))).to.deep.equal([16, 16, 128]);
    expect([130, 512, 1500].map((left) => segmentFor(left, gpu, alone))).to.deep.equal([128, 128, 2048]);
    // of many rows a call is little beside its tokens
    expect([100, 200].map((left) => segmentFor(left, [64, 256], callTokens(16, true)))).to.deep.equal([64, 256]);
    expect([callTokens(64, true), callTokens(64, false), callTokens(1, false)]).to.deep.equal([16, 16, 16]);
  });

  it('never costs more than one masked segment would, and covers any length', () => {
    const cost = (taken: readonly number[]): number => taken.reduce((sum, t) => sum + t + 16, 0);
    for (let length = 1; length <= 512; length++) {
      const taken = plan(length);
      expect(taken.reduce((a, b) => a + b)).to.be.at.least(length);
      expect(cost(taken), `${length}`).to.be.at.most(segments.find((t) => t >= length)! + 16);
    }
  });
});
