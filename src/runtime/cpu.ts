/** What this machine's processor can do, as far as it matters to a language model. */
import * as fs from 'node:fs';

const TELLING = [
  'sse4_2',
  'avx',
  'avx2',
  'fma',
  'avx512f',
  'avx512_vnni',
  'avx512_bf16',
  'amx_bf16',
  'amx_int8',
  'asimd',
  'asimddp',
  'bf16',
  'i8mm',
  'sve',
];

/** The vector instructions that Linux reports, in a fixed order; empty elsewhere. */
export function cpuFeatures(file = '/proc/cpuinfo'): string[] {
  try {
    const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(fs.readFileSync(file, 'utf8'))?.[1] ?? '';
    const flags = new Set(line.split(/\s+/));
    return TELLING.filter((name) => flags.has(name));
  } catch {
    return [];
  }
}
