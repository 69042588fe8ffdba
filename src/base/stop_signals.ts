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

/** Files and folders that are half written, which go with the process. */
const unfinished = new Set<string>();
const removeAll = (): void => {
  for (const file of unfinished) fs.rmSync(file, { recursive: true, force: true });
};
/** Who else listens for the signal ends the process in a way of its own, and its exit finds the files. */
const endProcess = (signal: NodeJS.Signals): void => {
  if (process.listenerCount(signal) > 1) return;
  removeAll();
  watch(false);
  process.kill(process.pid, signal);
};

function watch(on: boolean): void {
  // before the others: one that listens once is no longer counted after its turn
  for (const signal of STOP_SIGNALS)
    if (on) process.prependListener(signal, endProcess);
    else process.off(signal, endProcess);
  if (on) process.on('exit', removeAll);
  else process.off('exit', removeAll);
}

/**
 * A file or folder that is removed when the process ends by a signal, or exits, before the mark is taken back.
 * @returns takes it back: the file is whole, or gone
 */
export function unfinishedUntil(file: string): () => void {
  if (unfinished.size === 0) watch(true);
  unfinished.add(file);
  return () => {
    if (unfinished.delete(file) && unfinished.size === 0) watch(false);
  };
}
