import { expect } from 'chai';
import { type PlaceMemory, placeCounts } from '../../../src/engine/compiled/device_places.js';

describe('placeCounts', () => {
  const each = 168e6;
  const gpu = (bytes: number): PlaceMemory => ({ of: 'gpu', bytes });
  const cpu = (bytes: number): PlaceMemory => ({ of: 'cpu', bytes });

  it('gives a GPU as many places as rows, within shares of its memory', () => {
    expect(placeCounts(64, each, {}, gpu(141e9))).to.deep.equal({ readers: 16, kept: 64 });
    expect(placeCounts(8, each, {}, gpu(141e9))).to.deep.equal({ readers: 8, kept: 8 });
    expect(placeCounts(64, each, {}, gpu(16e9))).to.deep.equal({ readers: 5, kept: 11 });
    expect(placeCounts(64, each, {}, gpu(4e9))).to.deep.equal({ readers: 0, kept: 2 });
    expect(placeCounts(1, each, {}, gpu(Infinity))).to.deep.equal({ readers: 0, kept: 1 });
  });

  it('gives a CPU eight readers and two places for each row, within smaller shares', () => {
    expect(placeCounts(8, 19e6, {}, cpu(24e9))).to.deep.equal({ readers: 8, kept: 16 });
    expect(placeCounts(8, each, {}, cpu(24e9))).to.deep.equal({ readers: 4, kept: 8 });
    expect(placeCounts(1, each, {}, cpu(24e9))).to.deep.equal({ readers: 0, kept: 2 });
    expect(placeCounts(8, each, {}, cpu(2e9))).to.deep.equal({ readers: 0, kept: 0 });
  });

  it('gives anyone what is asked for', () => {
    expect(placeCounts(3, each, { readers: 4, device_bytes: 5.5 * each }, cpu(2e9))).to.deep.equal({
      readers: 4,
      kept: 5,
    });
    expect(placeCounts(64, each, { readers: 1, device_bytes: 0 }, gpu(141e9))).to.deep.equal({ readers: 0, kept: 0 });
  });
});
