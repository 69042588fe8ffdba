/** Files that this process has open. Linux tells; elsewhere none is seen. */
import * as fs from 'node:fs';
import * as path from 'node:path';

const OPEN = '/proc/self/fd';

export const tellsOpenFiles = fs.existsSync(OPEN);

/** Paths of what is open under a folder, each as often as it is. */
export function openUnder(folder: string): readonly string[] {
  const start = fs.realpathSync(folder) + path.sep;
  return fs.readdirSync(OPEN).flatMap((fd) => {
    try {
      const target = fs.readlinkSync(path.join(OPEN, fd));
      return target.startsWith(start) ? [target] : [];
    } catch {
      return []; // closed meanwhile
    }
  });
}

/**
 * How many more are open under a folder than there were, once none is or a second has passed: dispose() does not wait for
 * the system to close a file.
 */
export async function leftOpenUnder(folder: string, before: readonly string[]): Promise<number> {
  const more = (): number => Math.max(0, openUnder(folder).length - before.length);
  for (let waited = 0; waited < 1000 && more() > 0; waited += 10)
    await new Promise((resolve) => setTimeout(resolve, 10));
  return more();
}

/** Descriptors of any kind: files, pipes, sockets. */
export const descriptors = (): number => fs.readdirSync(OPEN).length;
