import { expect } from 'chai';
import { workers } from '../support/workers.js';

it('a worker thread generates and is terminated; the process lives on without a word on stderr', function () {
  this.timeout(120_000);
  const texts = workers('one');
  expect(texts).to.have.length(1);
  expect(texts[0]).to.match(/^Once upon a time\S*\s/);
});

it('process.exit() right after generating ends the process well', function () {
  this.timeout(120_000);
  expect(workers('exit')[0]).to.match(/^Once upon a time\S*\s/);
});
