/** A temporary folder with room, also where the disk of the usual one is full. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';

/** Bytes that must be free: a graph or a compiled program has some megabytes. */
const ROOM = 2 ** 26;

function free(folder: string): number {
  try {
    const { bavail, bsize } = fs.statfsSync(folder);
    return bavail * bsize;
  } catch {
    return 0;
  }
}

/** Where temporary folders are made: the system's place, or Linux' memory where that place is full. */
export function temporaryRoot(): string {
  const usual = os.tmpdir();
  return free(usual) < ROOM && free('/dev/shm') >= ROOM ? '/dev/shm' : usual;
}

/** A new folder of this user alone. @param prefix of its name */
export function temporaryFolder(prefix: string): string {
  return fs.mkdtempSync(path.join(temporaryRoot(), prefix));
}
