/** transformers on torch CPU, in a Python worker process (transformers_worker.py). */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { MissingPeer, type Peer, type Work } from './peer.js';
import { WorkerPeer } from './worker.js';

/** @throws MissingPeer without a Python that has torch and transformers */
export function transformers(work: Work, python: string): Peer {
  const probe = spawnSync(python, ['-c', 'import torch, transformers'], { encoding: 'utf8' });
  if (probe.status !== 0) {
    throw new MissingPeer(
      `'${python}' has no torch and transformers: name one that has with --python or MAMBA2_BENCH_PYTHON`,
    );
  }
  const script = fileURLToPath(new URL('./transformers_worker.py', import.meta.url));
  return new WorkerPeer('transformers, torch CPU', [python, script], work, { OMP_NUM_THREADS: String(work.threads) });
}
