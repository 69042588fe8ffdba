/**
 * Opening files: the one place where the package does it for reading. A pipe, a socket or a device would block for ever or never end, so
 * only regular files are opened, and one that is written to while it is read is an error.
 */
import * as fs from 'node:fs';
import { type ErrorClass, Mamba2Error } from './errors.js';

/** A regular file that is open for reading, as it was then. */
export interface OpenFile {
  readonly handle: fs.promises.FileHandle;
  readonly size: number;
  readonly modified: number;
}

/** Whether there is a file or a folder of this name. One that cannot be asked about is there: opening it says why. */
export async function isThere(file: string): Promise<boolean> {
  return fs.promises.access(file).then(
    () => true,
    ({ code }: NodeJS.ErrnoException) => code !== 'ENOENT' && code !== 'ENOTDIR',
  );
}

/** What a server says of a file that is not there, as a sentence with a blank before it; empty where that is all. */
export async function saidOfAbsent(file: string): Promise<string> {
  const error: unknown = await fs.promises.stat(file).catch((cause: unknown) => cause);
  const said = (error as { said?: unknown }).said;
  return typeof said === 'string' && said !== '' ? ` Of ${file}, ${said}.` : '';
}

/** Reasons for which reading was stopped: they are thrown as they are. */
const reasons = new WeakSet<object>();

/** @throws the signal's reason */
export function throwIfStopped(signal: AbortSignal | undefined): void {
  const reason: unknown = signal?.reason;
  if (typeof reason === 'object' && reason !== null) reasons.add(reason);
  signal?.throwIfAborted();
}

/** What an error of the operating system becomes. */
export function unreadable(file: string, cause: unknown, Failure: ErrorClass, verb = 'read'): Error {
  if (cause instanceof Mamba2Error || reasons.has(Object(cause) as object)) return cause as Error;
  const { code, message } = cause as NodeJS.ErrnoException;
  const why =
    code === 'ENOENT'
      ? 'there is no such file'
      : code === 'EMFILE'
        ? 'this process has as many files open as it may (ulimit -n)'
        : message;
  return new Failure(`Cannot ${verb} ${file}: ${why}.`, { file, code }, { cause });
}

/**
 * Opens a regular file.
 * @param most largest size in bytes
 * @throws Failure when it is not there, may not be read, is no regular file or is too large
 */
export async function openRegular(file: string, Failure: ErrorClass, most = Infinity): Promise<OpenFile> {
  let handle: fs.promises.FileHandle | undefined;
  try {
    // Without O_NONBLOCK the opening of a pipe waits for one who writes to it. Windows has no such flag, nor such files.
    handle = await fs.promises.open(file, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
    const stat = await handle.stat();
    if (!stat.isFile()) throw new Failure(`${file} is not a regular file.`, { file });
    if (stat.size > most)
      throw new Failure(`${file} has ${stat.size} bytes; at most ${most} are expected of such a file.`, {
        file,
        size: stat.size,
      });
    return { handle, size: stat.size, modified: stat.mtimeMs };
  } catch (error) {
    await handle?.close();
    throw unreadable(file, error, Failure, 'open');
  }
}

/** The error of a file that was written to since it was opened. */
export function changedError(file: string, Failure: ErrorClass): Mamba2Error {
  return new Failure(`${file} was changed while it was read. Read it again when nothing writes to it any more.`, {
    file,
  });
}

/** @throws Failure when the file was written to since it was opened */
export async function refuseChanged(
  { handle, size, modified }: OpenFile,
  file: string,
  Failure: ErrorClass,
): Promise<void> {
  const stat = await handle.stat();
  if (stat.size !== size || stat.mtimeMs !== modified) throw changedError(file, Failure);
}

/**
 * All bytes of a file.
 * @param most largest size in bytes. Default 512 MiB
 * @throws Failure as openRegular, and when the file was changed meanwhile
 */
export async function readBytes(file: string, Failure: ErrorClass, most = 512 * 2 ** 20): Promise<Uint8Array> {
  const open = await openRegular(file, Failure, most);
  try {
    const bytes = await open.handle.readFile();
    await refuseChanged(open, file, Failure);
    return bytes;
  } catch (error) {
    throw unreadable(file, error, Failure);
  } finally {
    await open.handle.close();
  }
}
