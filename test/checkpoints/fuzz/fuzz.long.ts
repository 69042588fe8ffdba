/** As fuzz.test.ts, with 100,000 damaged files of each kind (FUZZ_COUNT); the counts are printed. */
import { availableParallelism } from 'node:os';
import { checkAll } from './run.js';

describe('damaged files, many', function () {
  this.timeout(24 * 3_600_000);

  it('are read or refused, 100,000 of each kind', async () => {
    const say = (line: string): void => void process.stdout.write(`    ${line}\n`);
    await checkAll(Number(process.env.FUZZ_COUNT ?? 100_000), Math.min(4, availableParallelism()), say);
  });
});
