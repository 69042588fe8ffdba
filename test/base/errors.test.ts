import { expect } from 'chai';
import { CheckpointError } from '../../src/base/errors.js';

describe('messages', () => {
  it('hold nothing that a terminal obeys, and are not endless', () => {
    const { message } = new CheckpointError('a\u001b[2Jb\u0007\u202ec\r\nd');
    expect(message).to.equal('a\\u001b[2Jb\\u0007\\u202ec\\u000d\nd');
    expect(new CheckpointError('x'.repeat(2_000_000)).message).to.have.length(10_000);
    expect(new CheckpointError('日本 été 👨‍👩‍👧').message).to.equal('日本 été 👨‍👩‍👧');
  });
});
