/** Damaged files of every kind but the tokenizers': 2,000 of each, by seed (FUZZ_SEED). `npm run test:long` tries 100,000 of each. */
import { fuzzAll } from '../../support/fuzz_kinds.js';

describe('damaged files', function () {
  this.timeout(600_000);

  it('are read or refused, 2,000 of each kind: nothing aborts, hangs, grows or throws what is not ours', async () => {
    await fuzzAll(new URL('targets.ts', import.meta.url), { count: Number(process.env.FUZZ_COUNT ?? 2000) });
  });
});
