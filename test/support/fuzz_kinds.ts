/**
 * Runs all kinds of damaged files of a module side by side, and says what must be true of each kind.
 *
 * FUZZ_ONLY, the name of one or a part of several, picks among the kinds; FUZZ_LANES is the number of processes at a time (default: the cores, four at most).
 */
import * as assert from 'node:assert/strict'; // mocha and tsx are all that a machine needs which only runs damaged files
import { availableParallelism } from 'node:os';
import { endFuzz, fuzz, fuzzKinds, type FuzzReport } from './fuzz.js';

export interface KindsOptions {
  /** files of each kind */
  count: number;
  /** Least share of the files that is refused. Default 0: one is */
  refused?: number;
  /** Called with a line for each kind that is done. */
  say?: (line: string) => void;
}

/** Files that a process is given at a time: kinds last unlike long, and no process should be left alone with one at the end. */
const [LEAST_PIECE, MOST_PIECE] = [500, 5000];

/** What is found in the pieces of a kind. */
interface Found extends FuzzReport {
  left: number;
  ms: number;
}

function add(found: Found, report: FuzzReport, ms: number): void {
  found.left--;
  found.ms += ms;
  found.accepted += report.accepted;
  found.refused += report.refused;
  found.faults.push(...report.faults);
  found.memory = Math.max(found.memory, report.memory);
  if (report.slowest.ms > found.slowest.ms) found.slowest = report.slowest;
}

/** No abort, no hang, no error but the package's own, no memory beyond 1 GB. */
function check(kind: string, found: Found, { count, refused: share = 0 }: KindsOptions): void {
  const { accepted, refused, faults, memory } = found;
  const told = faults.map(({ index, kind: what, detail }) => `${index}, ${what}: ${detail}`);
  assert.deepEqual(told, [], `${kind}: ${told.join('\n')}`);
  assert.equal(accepted + refused, count, kind);
  // that damage is met at all, and that not all is refused
  assert.ok(refused > share * count, `${kind}: ${refused} refused`);
  assert.ok(accepted > 0, `${kind}: none read`);
  assert.ok(memory < 2 ** 30, `${kind}: ${memory} bytes of memory`);
}

/** Runs a module's kinds, cut into pieces that run side by side. */
export async function fuzzAll(module: URL, options: KindsOptions): Promise<void> {
  const lanes = Number(process.env.FUZZ_LANES ?? Math.min(4, availableParallelism()));
  assert.ok(lanes >= 1, 'FUZZ_LANES is a number of processes');
  try {
    const all = await fuzzKinds(module, lanes);
    const only = process.env.FUZZ_ONLY ?? '';
    const kinds = all.includes(only) ? [only] : all.filter((kind) => kind.includes(only));
    assert.ok(kinds.length > 0, `no kind of files is named ${only}`);
    await runKinds(module, kinds, lanes, options);
  } finally {
    endFuzz(module);
  }
}

async function runKinds(module: URL, kinds: readonly string[], lanes: number, options: KindsOptions): Promise<void> {
  const { count, say = () => undefined } = options;
  const length = Math.max(LEAST_PIECE, Math.min(MOST_PIECE, Math.ceil(count / lanes)));
  const pieces = kinds.flatMap((kind) => {
    const found: Found = {
      ...{ accepted: 0, refused: 0, faults: [], slowest: { index: -1, ms: 0 }, memory: 0 },
      ...{ left: Math.ceil(count / length), ms: 0 },
    };
    return Array.from({ length: found.left }, (_, i) => ({ kind, found, first: i * length }));
  });
  const failures: unknown[] = [];
  const lane = async (): Promise<void> => {
    for (let piece = pieces.shift(); piece !== undefined; piece = pieces.shift()) {
      const { kind, found, first } = piece;
      const start = performance.now();
      const report = await fuzz(module, kind, { first, count: Math.min(length, count - first) });
      add(found, report, performance.now() - start);
      if (found.left > 0) continue;
      const { accepted, refused, faults, slowest, memory, ms } = found;
      say(
        `${kind}: ${accepted} read, ${refused} refused, ${faults.length} faults; ` +
          `at most ${Math.round(slowest.ms)} ms, ${memory >> 20} MB; ${Math.round(ms / 1000)} s of a process`,
      );
      try {
        check(kind, found, options);
      } catch (failure) {
        failures.push(failure); // the other kinds' counts are worth having
      }
    }
  };
  const stop = (failure: unknown): never => {
    pieces.length = 0; // the other lanes end with what they have begun
    throw failure;
  };
  await Promise.all(Array.from({ length: lanes }, () => lane().catch(stop)));
  if (failures.length > 1) throw new AggregateError(failures, failures.map((one) => (one as Error).message).join('\n'));
  if (failures.length > 0) throw failures[0];
}
