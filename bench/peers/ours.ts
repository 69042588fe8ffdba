/** Our engines, each in a worker process (ours_worker.ts). */
import { fileURLToPath } from 'node:url';
import * as path from 'node:path';
import type { Peer, Work } from './peer.js';
import { WorkerPeer } from './worker.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** @param checkout another checkout of this project whose engine is measured, prepared like this one; default this one */
export function ours(
  engine: 'compiled' | 'eager' | 'int4',
  work: Work,
  xlaFlags: readonly string[] = [],
  checkout = root,
): Peer {
  const name = {
    compiled: 'tfjs-mamba2, compiled',
    eager: 'tfjs-mamba2, eager float32',
    int4: 'tfjs-mamba2, compiled int4',
  }[engine];
  const scripts = { load: 'load_worker.ts', train: 'train_worker.ts' } as Record<string, string>;
  const script = path.join(checkout, 'bench/peers', scripts[work.task] ?? 'ours_worker.ts');
  const shown = checkout === root ? name : `${name} (baseline)`;
  return new WorkerPeer(shown, [process.execPath, '--import=tsx', script, engine, ...xlaFlags], work);
}
