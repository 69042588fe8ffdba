/** Folders of things that are made anew when missing: kept within a size by taking out what was used longest ago. */
import * as fs from 'node:fs';
import * as path from 'node:path';

interface Entry {
  file: string;
  bytes: number;
  /** When it was last read or written, in milliseconds. Some file systems note no reads. */
  used: number;
}

/** A file, or a folder with all that is in it. */
function measure(file: string): Entry {
  const stat = fs.lstatSync(file);
  const own = { file, bytes: stat.size, used: Math.max(stat.mtimeMs, stat.atimeMs) };
  if (!stat.isDirectory()) return own;
  // a listing reads a folder: only what is in it tells of its use
  const inside = fs.readdirSync(file).map((name) => measure(path.join(file, name)));
  return {
    file,
    bytes: inside.reduce((sum, { bytes }) => sum + bytes, 0),
    used: Math.max(...inside.map(({ used }) => used), inside.length > 0 ? 0 : stat.mtimeMs),
  };
}

function entriesAt(folder: string, depth: number): string[] {
  const entries = fs.readdirSync(folder, { withFileTypes: true });
  return entries.flatMap((entry) => {
    const file = path.join(folder, entry.name);
    return depth > 1 && entry.isDirectory() ? entriesAt(file, depth - 1) : [file];
  });
}

/**
 * Deletes the entries of a cache folder that were used longest ago, until no more than `most` bytes are left. An entry is whole or gone. Never
 * throws: a folder that is not there, or that another process changes meanwhile, is left as it is.
 * @param depth how far below the folder the entries are: 1 for what lies in it
 * @returns how many were deleted
 * @example
 * pruneCache('/home/me/.cache/tfjs-mamba2/graphs', 2 ** 29);
 */
export function pruneCache(folder: string, most: number, depth = 1): number {
  try {
    const entries = entriesAt(folder, depth).map(measure);
    let left = entries.reduce((sum, { bytes }) => sum + bytes, 0);
    let deleted = 0;
    for (const { file, bytes } of entries.sort((a, b) => a.used - b.used)) {
      if (left <= most) break;
      fs.rmSync(file, { recursive: true, force: true });
      left -= bytes;
      deleted++;
    }
    return deleted;
  } catch {
    return 0;
  }
}
