/** Readers with faults of every kind, for fuzz.test.ts. */
import { ArgumentError } from '../../src/base/errors.js';
import type { FuzzTarget, FuzzTargets } from './fuzz.js';

let read = 0;
/** A reader that meets its fault in the third file. */
function third(fault: () => unknown): FuzzTarget {
  return {
    kind: 'bytes',
    samples: () => {
      read = 0;
      return [Buffer.from('sound')];
    },
    attempt: async () => {
      if (++read === 3) await fault();
      else if (read % 2 === 0) throw new ArgumentError('refused', {});
    },
  };
}

export const fuzzTargets: FuzzTargets = {
  sound: third(() => undefined),
  foreign: third(() => {
    throw new TypeError('not ours');
  }),
  stray: third(() => {
    void Promise.reject(new RangeError('awaited by nobody'));
    return new Promise((resolve) => setTimeout(resolve, 10));
  }),
  abort: third(() => process.kill(process.pid, 'SIGABRT')),
  endless: third(() => {
    for (;;);
  }),
  asleep: third(() => new Promise((resolve) => setTimeout(resolve, 60_000))),
  large: third(() => Buffer.alloc(5e8, 1)),
};
