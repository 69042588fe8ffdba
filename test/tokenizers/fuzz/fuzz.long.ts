/** As fuzz.test.ts, with 100,000 damaged files of each kind (FUZZ_COUNT); the counts are printed. */
import { fuzzAll } from '../../support/fuzz_kinds.js';

describe('damaged tokenizer files, many', function () {
  this.timeout(7 * 24 * 3_600_000);

  it('are read or refused, 100,000 of each kind', async () => {
    await fuzzAll(new URL('targets.ts', import.meta.url), {
      count: Number(process.env.FUZZ_COUNT ?? 100_000),
      refused: 0.1,
      say: (line) => void process.stdout.write(`    ${line}\n`),
    });
  });
});
