import { expect } from 'chai';
import { workers } from '../support/workers.js';

it('worker threads end or are terminated, one after the other and two at once, while all cores are busy', () => {
  const texts = workers('busy');
  expect(texts).to.have.length(4);
  expect(new Set(texts).size, 'all write the same').to.equal(1);
});
