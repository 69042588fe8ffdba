/** Signals that end a program from outside: Ctrl-C, `kill`, a terminal that is closed. All are taken alike. */
import * as fs from 'node:fs';

export const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
export type StopSignal = (typeof STOP_SIGNALS)[number];

const NUMBERS: Readonly<Record<StopSignal, number>> = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 };

/** The exit code of a program that a signal ended, as shells tell it. */
export function exitCodeOf(signal: StopSignal): number {
  return 128 + NUMBERS[signal];
}

/**
 * Calls `handle` at the first of these signals; a second one ends the process, as without it.
 * @returns takes it back
 */
export function onStopSignal(handle: (signal: StopSignal) => void): () => void {
  const take = (signal: NodeJS.Signals): void => {
    off();
    handle(signal as StopSignal);
  };
  const off = (): void => {
    for (const signal of STOP_SIGNALS) process.off(signal, take);
  };
  for (const signal of STOP_SIGNALS) process.on(signal, take);
  return off;
}

/** What is done before the process goes, the last first: a folder goes before the lock that says whose it is. */
const endings = new Set<() => void>();
const endAll = (): void => {
  for (const ending of [...endings].reverse())
    try {
      ending();
    } catch {
      // the others still are to be done, and nobody is left to be told
    }
};
/** Who else listens for the signal ends the process in a way of its own, and its exit does what is to be done. */
const endProcess = (signal: NodeJS.Signals): void => {
  if (process.listenerCount(signal) > 1) return;
  endAll();
  watch(false);
  process.kill(process.pid, signal);
};

function watch(on: boolean): void {
  // before the others: one that listens once is no longer counted after its turn
  for (const signal of STOP_SIGNALS)
    if (on) process.prependListener(signal, endProcess);
    else process.off(signal, endProcess);
  if (on) process.on('exit', endAll);
  else process.off('exit', endAll);
}

/**
 * Calls back when the process ends by a signal, or exits, before the mark is taken back.
 * @returns takes it back
 */
export function atEnd(ending: () => void): () => void {
  if (endings.size === 0) watch(true);
  endings.add(ending);
  return () => {
    if (endings.delete(ending) && endings.size === 0) watch(false);
  };
}

/**
 * A file or folder that is removed when the process ends by a signal, or exits, before the mark is taken back.
 * @returns takes it back: the file is whole, or gone
 */
export function unfinishedUntil(file: string): () => void {
  // another thread may still be writing into a folder, and it is not empty then
  return atEnd(() => fs.rmSync(file, { recursive: true, force: true, maxRetries: 5, retryDelay: 10 }));
}
