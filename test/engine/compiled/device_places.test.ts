import { expect } from 'chai';
import { placeCounts } from '../../../src/engine/compiled/device_places.js';

describe('placeCounts', () => {
  const each = 168e6;

  it('gives a GPU as many places as rows, within shares of its memory', () => {
    expect(placeCounts(64, each, {}, 141e9)).to.deep.equal({ readers: 16, kept: 64 });
    expect(placeCounts(8, each, {}, 141e9)).to.deep.equal({ readers: 8, kept: 8 });
    expect(placeCounts(64, each, {}, 16e9)).to.deep.equal({ readers: 5, kept: 11 });
    expect(placeCounts(64, each, {}, 4e9)).to.deep.equal({ readers: 0, kept: 2 });
    expect(placeCounts(1, each, {}, Infinity)).to.deep.equal({ readers: 0, kept: 1 });
  });

  it('gives a CPU none, and anyone what is asked for', () => {
    expect(placeCounts(64, each, {}, null)).to.deep.equal({ readers: 0, kept: 0 });
    expect(placeCounts(3, each, { readers: 4, device_bytes: 5.5 * each }, null)).to.deep.equal({ readers: 4, kept: 5 });
    expect(placeCounts(64, each, { readers: 1, device_bytes: 0 }, 141e9)).to.deep.equal({ readers: 0, kept: 0 });
  });
});
