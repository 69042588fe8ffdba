import { execFileSync } from 'node:child_process';

/** Memory of the first card that is taken, in MB (10^6 bytes), whoever took it; null without nvidia-smi. */
export function gpuMemoryMb(): number | null {
  try {
    const out = execFileSync('nvidia-smi', ['--query-gpu=memory.used', '--format=csv,noheader,nounits'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const mib = Number.parseInt(out.toString(), 10);
    return Number.isNaN(mib) ? null : Math.round((mib * 2 ** 20) / 1e6);
  } catch {
    return null; // not installed: a CPU's figures have rss_mb
  }
}
