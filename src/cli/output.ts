/** What the commands share in talking to the terminal. */
import { Mamba2Error } from '../base/errors.js';

/** Writes to standard output and waits until a slow reader has taken it. */
export function write(text: string): Promise<void> {
  return new Promise((resolve) => {
    if (process.stdout.write(text)) resolve();
    else process.stdout.once('drain', resolve);
  });
}

/** Writes a line to standard error. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Tells of an error on standard error: its message alone, or with the stack. */
export function report(error: unknown, debug: boolean): void {
  if (debug) {
    note(error instanceof Error ? stackOf(error) : String(error));
    return;
  }
  const message = error instanceof Error ? error.message : String(error);
  const hint = error instanceof Mamba2Error ? '' : ' (--debug shows where)';
  note(`mamba2: ${message.trim()}${hint}`);
}

function stackOf(error: Error): string {
  const own = error.stack ?? error.message;
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackOf(error.cause)}` : own;
}

/** Rows of a label and a value, the values below each other. */
export function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([label]) => label.length)) + 2;
  return rows.map(([label, value]) => `${label.padEnd(width)}${value}\n`).join('');
}
