import { expect } from 'chai';
import { table } from '../../src/cli/output.js';

describe('what commands print of files', () => {
  it('holds nothing that a terminal obeys, and may be long', () => {
    expect(table([['a\u001b[2J', 'b\u0007\n']])).to.equal('a\\u001b[2J  b\\u0007\\u000a\n');
    const rows = Array.from({ length: 300_000 }, (_, i) => [`tensor ${i}`, 'F32'] as const);
    expect(table(rows).split('\n')).to.have.length(300_001);
  });
});
