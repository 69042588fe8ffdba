/** Loops over many elements, with room for others in between. */
import { letOthersRun } from './async.js';

/** Elements that are worked on without a look at the clock: much below a millisecond, but where their memory is new and the system is slow to give it. */
const TOGETHER = 2 ** 16;

/** Milliseconds after which others may run. */
const SPELL = 4;

/** Works on elements [0, count) some at a time, with the event loop running in between. @param work of elements [begin, end) */
export async function someAtATime(count: number, work: (begin: number, end: number) => void): Promise<void> {
  let began = performance.now();
  for (let begin = 0; begin < count; begin += TOGETHER) {
    work(begin, Math.min(begin + TOGETHER, count));
    if (performance.now() - began < SPELL || begin + TOGETHER >= count) continue;
    await letOthersRun();
    began = performance.now();
  }
}
