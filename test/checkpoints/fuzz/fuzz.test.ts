/** Damaged files of every kind but the tokenizers': 2,000 of each, by seed (FUZZ_SEED). `npm run test:long` tries 100,000 of each. */
import { availableParallelism } from 'node:os';
import { checkAll } from './run.js';

describe('damaged files', function () {
  this.timeout(600_000);

  it('are read or refused, 2,000 of each kind: nothing aborts, hangs, grows or throws what is not ours', async () => {
    await checkAll(Number(process.env.FUZZ_COUNT ?? 2000), Math.min(4, availableParallelism()), () => undefined);
  });
});
