/** Folders whose files are run as code, or decide what is: nobody but this user may put anything there. */
import * as fs from 'node:fs';

/** Why a file or folder is not this user's alone, as the end of a sentence; null when it is. @param trusted other users whose it may be */
export function foreign(
  stat: Pick<fs.Stats, 'uid' | 'mode'>,
  trusted: readonly number[] = [],
  user = process.geteuid?.(),
): string | null {
  if (user === undefined) return null; // this system has no such thing
  if (stat.uid !== user && !trusted.includes(stat.uid)) return `belongs to the user ${stat.uid}, and this is ${user}`;
  return stat.mode & 0o022 ? 'may be written by others (mode 0700 is expected)' : null;
}

/**
 * Makes a folder, or sees that there is one, that belongs to this user and that nobody else writes.
 * @param close whether others are kept from reading it too
 * @returns null when it may be used, else why not, as a sentence without its point
 */
export function privateFolder(folder: string, close: boolean): string | null {
  try {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    const stat = fs.statSync(folder);
    const why = stat.isDirectory() ? foreign(stat) : 'is no folder';
    if (why) return `${folder} ${why}`;
    if (close && stat.mode & 0o077) fs.chmodSync(folder, 0o700);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}
