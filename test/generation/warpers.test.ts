import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { LogitsProcessor } from '../../src/generation/index.js';
import * as warpers from '../../src/generation/warpers.js';

interface Case {
  warper: string;
  arguments: number[];
  kept: number[][];
}

describe('warpers, with scores removed before and tokens to keep', () => {
  const fixture = JSON.parse(readFileSync('test/fixtures/warpers.json', 'utf8')) as {
    scores: (number | null)[][];
    cases: Case[];
  };
  const make = warpers as unknown as Record<string, new (...args: number[]) => LogitsProcessor>;

  for (const { warper, arguments: args, kept } of fixture.cases) {
    it(`${warper}(${args.join(', ')}) keeps what transformers keeps, unchanged`, () => {
      const processor = new make[`${warper}LogitsWarper`]!(...args);
      fixture.scores.forEach((row, r) => {
        const before = Float32Array.from(row, (x) => x ?? -Infinity);
        const scores = before.slice();
        processor.process([], scores, r);
        expect([...scores.keys()].filter((i) => scores[i] !== -Infinity)).to.deep.equal(kept[r]);
        for (const i of kept[r]!) expect(scores[i]).to.equal(before[i]);
      });
    });
  }
});
