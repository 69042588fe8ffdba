/** Our engines, each in a worker process (ours_worker.ts). */
import { fileURLToPath } from 'node:url';
import type { Peer, Work } from './peer.js';
import { WorkerPeer } from './worker.js';

const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

export function ours(engine: 'compiled' | 'eager' | 'int4', work: Work, xlaFlags: readonly string[] = []): Peer {
  const name = {
    compiled: 'tfjs-mamba2, compiled',
    eager: 'tfjs-mamba2, eager float32',
    int4: 'tfjs-mamba2, compiled int4',
  }[engine];
  const scripts = { load: './load_worker.ts', train: './train_worker.ts' } as Record<string, string>;
  const script = scripts[work.task] ?? './ours_worker.ts';
  return new WorkerPeer(name, [process.execPath, '--import=tsx', here(script), engine, ...xlaFlags], work);
}
