/**
 * Damaged tokenizer files by the hundred: no abort, no hang, no foreign error. FUZZ_COUNT (default 100 of each kind) and FUZZ_SEED make longer
 * and other runs; `npm run test:long` has one.
 */
import { expect } from 'chai';
import { Tokenizer } from '../../../src/tokenizers/index.js';
import { fuzz } from '../../support/fuzz.js';
import { sampleTokenizers } from './samples.js';
import { fuzzTargets } from './targets.js';

const COUNT = Number(process.env.FUZZ_COUNT ?? 100);

describe(`damaged tokenizer files (${COUNT} of each kind)`, function () {
  this.timeout(60_000 + COUNT * 1000);

  it('are made of sound ones', async () => {
    for (const [i, tokenizer] of sampleTokenizers().entries()) {
      const files = { source: `sample ${i}`, tokenizer, config: {}, special_tokens_map: {}, chat_templates: {} };
      const loaded = await Tokenizer.from_files(files, { backend: 'native' });
      expect((await loaded.encode('hello worlds, 123 <x> abc a-b_c 中文')).length, `sample ${i}`).to.be.greaterThan(5);
    }
  });

  for (const target of Object.keys(fuzzTargets)) {
    it(`${target}: TokenizerErrors, and nothing else`, async () => {
      const report = await fuzz(new URL('targets.ts', import.meta.url), target, { count: COUNT });
      expect(report.faults).to.deep.equal([]);
      expect(report.accepted + report.refused).to.equal(COUNT);
      expect(report.refused).to.be.greaterThan(COUNT / 10);
      expect(report.accepted).to.be.greaterThan(0);
      expect(report.memory).to.be.lessThan(1e9);
    });
  }
});
