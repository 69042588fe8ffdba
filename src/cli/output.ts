/** What the commands share in talking to the terminal. */
import type { Command } from 'commander';
import { Mamba2Error } from '../base/errors.js';
import { plain } from '../base/quote.js';
import { inFlags } from './flags.js';

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

/**
 * Tells of an error on standard error: its message alone, or with the stack.
 * @param command the one that ran: the message speaks of its flags
 */
export function report(error: unknown, debug: boolean, command: Command | null = null): void {
  if (debug) {
    note(error instanceof Error ? stackOf(error) : String(error));
    return;
  }
  const system = systemError(error);
  const hint = error instanceof Mamba2Error || system ? '' : ' (--debug shows where)';
  note(`mamba2: ${(system ?? inFlags(error, command)).trim()}${hint}`);
}

/** What to say of errors of the operating system that are nobody's fault in here; null for others. */
function systemError(error: unknown): string | null {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { code, path } = at as NodeJS.ErrnoException;
    if (code === 'EMFILE' || code === 'ENFILE')
      return `Too many open files${path ? `, at ${path}` : ''}: the limit (\`ulimit -n\`) is too low. Raise it to 1024 or more.`;
  }
  return null;
}

/** Whether the streams are looked after: once a process, however many commands run in it. */
let watched = false;

/**
 * Ends the program where nobody can read what it prints: quietly when the reader has seen enough (`| head`), with a message and code 1
 * when the output cannot be written.
 */
export function endWithOutput(): void {
  if (watched) return;
  watched = true;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    const full = error.code === 'ENOSPC' ? 'there is no space left on the device' : error.message;
    note(`mamba2: Standard output cannot be written: ${full}.`);
    process.exit(1);
  });
  // messages are for people: without a reader there is nobody to tell
  process.stderr.on('error', () => process.exit(process.exitCode ?? 1));
}

function stackOf(error: Error): string {
  const own = error.stack ?? error.message;
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackOf(error.cause)}` : own;
}

/** Rows of a label and a value, the values below each other. Names of tensors and notes in files may hold what a terminal would obey. */
export function table(rows: readonly (readonly [string, string])[]): string {
  const shown = rows.map(([label, value]) => [plain(label, 500), plain(value, 2000)] as const);
  const width = shown.reduce((most, [label]) => Math.max(most, label.length), 0) + 2;
  return shown.map(([label, value]) => `${label.padEnd(width)}${value}\n`).join('');
}
