import { expect } from 'chai';
import { markdownTable, ratios, spread } from '../../bench/statistics.js';

describe('statistics of benchmarks', () => {
  it('median, least and most', () => {
    expect(spread([3, 1, 2])).to.deep.equal({ median: 2, min: 1, max: 3 });
    expect(spread([4, 1, 2, 9])).to.deep.equal({ median: 3, min: 1, max: 9 });
    expect(() => spread([])).to.throw(RangeError);
  });

  it('ratios round by round, not of the medians', () => {
    // the second round was slow for both
    expect(ratios([10, 1, 8], [5, 0.5, 2])).to.deep.equal({ median: 2, min: 2, max: 4 });
  });

  it('table with padded columns', () => {
    expect(markdownTable(['a', 'value'], [['long name', '1']])).to.equal(
      ['| a         | value |', '| --------- | ----: |', '| long name |     1 |'].join('\n'),
    );
  });
});
