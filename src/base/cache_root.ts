import * as os from 'node:os';
import * as path from 'node:path';

/** The folder of everything this package caches: `$XDG_CACHE_HOME/tfjs-mamba2` or `~/.cache/tfjs-mamba2`. */
export function cacheRoot(): string {
  const base = process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache');
  return path.join(base, 'tfjs-mamba2');
}
