/**
 * Operations run by several threads: the page's own, and workers that wait in serve() for the next run. `control` is eight words of memory: the number
 * of the run, how often threads have come to a border in all, and what is run.
 */
import { operation } from './step';

const CAME: usize = 4;
const PROGRAM: usize = 8;
const COUNT: usize = 12;
const THREADS: usize = 16;
const SCRATCH: usize = 20;
const SIZE: usize = 24;
/** What CAME was before the run. */
const BEFORE: usize = 28;

/** Bytes of an operation. */
const STEP: usize = 64;

/** Looks at the next run's number before a worker sleeps: some tenths of a millisecond, in which the page chooses a token. */
const LOOKS = 200000;

function part(control: usize, thread: i32): void {
  const threads = load<i32>(control + THREADS);
  const scratch = load<usize>(control + SCRATCH) + <usize>thread * load<usize>(control + SIZE);
  let op = load<usize>(control + PROGRAM);
  let mark = load<i32>(control + BEFORE);
  for (let left = load<i32>(control + COUNT); left > 0; left--) {
    operation(op, thread, threads, scratch);
    op += STEP;
    if (threads == 1) continue;
    mark += threads;
    atomic.add<i32>(control + CAME, 1);
    // the number goes round
    while (atomic.load<i32>(control + CAME) - mark < 0) {}
  }
}

/** Runs `count` operations. @param threads those that serve, and this one @param size bytes of scratch for each */
export function run(control: usize, program: usize, count: i32, threads: i32, scratch: usize, size: usize): void {
  store<usize>(control + PROGRAM, program);
  store<i32>(control + COUNT, count);
  store<i32>(control + THREADS, threads);
  store<usize>(control + SCRATCH, scratch);
  store<usize>(control + SIZE, size);
  store<i32>(control + BEFORE, atomic.load<i32>(control + CAME));
  if (threads > 1) {
    atomic.add<i32>(control, 1);
    atomic.notify(control, threads - 1);
  }
  part(control, 0);
}

/** What a worker does from the start on: its part of each run. Needs a memory that is shared. */
export function serve(control: usize, thread: i32): void {
  let last = 0;
  while (true) {
    for (let looks = 0; atomic.load<i32>(control) == last; looks++)
      if (looks >= LOOKS) atomic.wait<i32>(control, last, -1);
    last = atomic.load<i32>(control);
    part(control, thread);
  }
}
