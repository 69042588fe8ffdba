/** Runs readers on damaged files and says what must be true of all of them. */
import { expect } from 'chai';
import { fuzz, type FuzzReport } from '../../support/fuzz.js';
import { fuzzTargets } from './targets.js';

const TARGETS = new URL('targets.ts', import.meta.url);

/** Names of the kinds of files; FUZZ_ONLY, a part of a name, picks among them. */
const KINDS: readonly string[] = Object.keys(fuzzTargets).filter((kind) => kind.includes(process.env.FUZZ_ONLY ?? ''));

/** No abort, no hang, no error but the package's own, no memory beyond 1 GB. */
async function check(kind: string, count: number): Promise<FuzzReport> {
  const report = await fuzz(TARGETS, kind, { count });
  const { accepted, refused, faults, memory } = report;
  expect(
    faults.map(({ index, kind: what, detail }) => `${index}, ${what}: ${detail}`),
    kind,
  ).to.deep.equal([]);
  expect(accepted + refused, kind).to.equal(count);
  // that damage is met at all, and that not all is refused
  expect(refused, kind).to.be.above(0);
  expect(accepted, kind).to.be.above(0);
  expect(memory, kind).to.be.below(2 ** 30);
  return report;
}

/** Runs all kinds, in so many processes at a time. */
export async function checkAll(count: number, lanes: number, say: (line: string) => void): Promise<void> {
  const left = [...KINDS];
  const lane = async (): Promise<void> => {
    for (let kind = left.shift(); kind !== undefined; kind = left.shift()) {
      const { accepted, refused, slowest, memory } = await check(kind, count);
      say(`${kind}: ${accepted} read, ${refused} refused; at most ${Math.round(slowest.ms)} ms, ${memory >> 20} MB`);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}
