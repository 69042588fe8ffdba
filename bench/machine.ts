/** What a figure depends on besides the code: the machine, its other load, and the versions. */
import { readFileSync } from 'node:fs';
import * as os from 'node:os';
import { TENSORFLOW_VERSION } from '../src/runtime/index.js';

export interface Machine {
  date: string;
  cpu: string;
  cores: number;
  node: string;
  tensorflow: string;
  /** bfloat16 instructions of the processor, which some peers use. */
  features: string[];
}

export function machine(): Machine {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(cpuinfo())?.[1]!.trim().split(/\s+/));
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: os.cpus()[0]?.model ?? process.arch,
    cores: os.availableParallelism(),
    node: process.version,
    tensorflow: TENSORFLOW_VERSION,
    features: ['avx2', 'avx512f', 'avx512_bf16', 'amx_bf16'].filter((name) => flags.has(name)),
  };
}

function cpuinfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'utf8');
  } catch {
    return '';
  }
}

interface Ticks {
  busy: number;
  total: number;
}

function ticks(): Ticks {
  const all = os.cpus().map(({ times }) => times);
  const total = all.reduce((sum, t) => sum + t.user + t.nice + t.sys + t.irq + t.idle, 0);
  return { total, busy: total - all.reduce((sum, t) => sum + t.idle, 0) };
}

/** Share of all cores that was busy during `work`, whoever kept them busy, from 0 to 1. */
export async function busyDuring(work: () => Promise<void>): Promise<number> {
  const before = ticks();
  await work();
  const after = ticks();
  return (after.busy - before.busy) / Math.max(1, after.total - before.total);
}

/**
 * How busy others keep the machine: cores in use while nothing of the benchmark runs, over one second.
 */
export async function otherLoad(): Promise<number> {
  const share = await busyDuring(() => new Promise((resolve) => setTimeout(resolve, 1000)));
  return share * os.cpus().length;
}
