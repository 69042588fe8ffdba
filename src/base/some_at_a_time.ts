/** Loops over many elements, with room for others in between. */
import { letOthersRun } from './async.js';

/** Elements between two looks at the clock: much below a millisecond, but where their memory is new and the system is slow to give it. */
const UNWATCHED = 2 ** 16;

/** Elements, and milliseconds, after which others may run. */
const [TOGETHER, SPELL] = [2 ** 20, 4];

/** Works on elements [0, count) some at a time, with the event loop running in between. @param work of elements [begin, end) */
export async function someAtATime(count: number, work: (begin: number, end: number) => void): Promise<void> {
  let [first, began] = [0, performance.now()];
  for (let begin = 0; begin < count;) {
    const end = Math.min(begin + UNWATCHED, count);
    work(begin, end);
    begin = end;
    if (begin === count || (begin - first < TOGETHER && performance.now() - began < SPELL)) continue;
    await letOthersRun();
    [first, began] = [begin, performance.now()];
  }
}
