/**
 * Operations run by several threads: the page's own, and workers that wait in serve() for the next run. An operation is in parts, which threads claim one
 * by one; the next begins when all parts are done. Who has claimed nothing holds up nobody, so that a thread that the machine does not run, or that is
 * still asleep, is not waited for.
 *
 * `control` is ten words of memory: the number of the run, odd while it is being written down; how many parts were claimed, and done, in all runs; and
 * what is run. Numbers go round, so only differences count.
 */
import { operation } from './step';

const CLAIMED: usize = 4;
const DONE: usize = 8;
const PROGRAM: usize = 12;
const COUNT: usize = 16;
const PARTS: usize = 20;
const SCRATCH: usize = 24;
const SIZE: usize = 28;
/** What DONE was before the run. */
const BEFORE: usize = 32;

/** Bytes of an operation. */
const STEP: usize = 64;

/** Looks at the next run's number before a worker sleeps: some tenths of a millisecond, in which the page chooses a token. */
const LOOKS = 200000;

/** Claims parts of a run and does them, until all are done. */
function share(control: usize, program: usize, count: i32, parts: i32, scratch: usize, before: i32): void {
  const all = count * parts;
  while (true) {
    const done = atomic.load<i32>(control + DONE) - before;
    if (done >= all) return;
    const index = done / parts;
    const claimed = atomic.load<i32>(control + CLAIMED);
    const part = claimed - before - index * parts;
    // the operation before is done, so that a part of this one that nobody had claimed can be worked on
    if (part < 0 || part >= parts) continue;
    if (atomic.cmpxchg<i32>(control + CLAIMED, claimed, claimed + 1) != claimed) continue;
    operation(program + <usize>index * STEP, part, parts, scratch);
    atomic.add<i32>(control + DONE, 1);
  }
}

/**
 * Runs `count` operations.
 * @param threads those that serve, and this one @param parts of each operation @param size bytes of scratch for each thread
 */
export function run(
  control: usize,
  program: usize,
  count: i32,
  threads: i32,
  parts: i32,
  scratch: usize,
  size: usize,
): void {
  if (threads == 1) {
    for (let i = 0; i < count; i++) operation(program + <usize>i * STEP, 0, 1, scratch);
    return;
  }
  const before = atomic.load<i32>(control + DONE);
  atomic.add<i32>(control, 1);
  atomic.store<usize>(control + PROGRAM, program);
  atomic.store<i32>(control + COUNT, count);
  atomic.store<i32>(control + PARTS, parts);
  atomic.store<usize>(control + SCRATCH, scratch);
  atomic.store<usize>(control + SIZE, size);
  atomic.store<i32>(control + BEFORE, before);
  atomic.add<i32>(control, 1);
  atomic.notify(control, threads - 1);
  share(control, program, count, parts, scratch, before);
}

/** What a worker does from the start on: its share of each run. Needs a memory that is shared. */
export function serve(control: usize, thread: i32): void {
  let last = 0;
  while (true) {
    let run = atomic.load<i32>(control);
    for (let looks = 0; run == last || (run & 1) != 0; looks++) {
      if (looks >= LOOKS && run == last) atomic.wait<i32>(control, last, -1);
      run = atomic.load<i32>(control);
    }
    const program = atomic.load<usize>(control + PROGRAM);
    const count = atomic.load<i32>(control + COUNT);
    const parts = atomic.load<i32>(control + PARTS);
    const scratch = atomic.load<usize>(control + SCRATCH) + <usize>thread * atomic.load<usize>(control + SIZE);
    const before = atomic.load<i32>(control + BEFORE);
    // the run may be over, and the next being written down
    if (atomic.load<i32>(control) != run) continue;
    last = run;
    share(control, program, count, parts, scratch, before);
  }
}
