/** Loops over many elements, with room for others in between. */
import { letOthersRun } from './async.js';

/** Elements that loops over many work on before others may run: some milliseconds. */
const TOGETHER = 2 ** 20;

/** Works on elements [0, count) some at a time, with the event loop running in between. @param work of elements [begin, end) */
export async function someAtATime(count: number, work: (begin: number, end: number) => void): Promise<void> {
  for (let begin = 0; begin < count; begin += TOGETHER) {
    const end = Math.min(begin + TOGETHER, count);
    work(begin, end);
    if (end < count) await letOthersRun();
  }
}
