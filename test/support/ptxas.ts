/** NVIDIA's assembler, where there is one: whether kernels in PTX are such. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { PtxWriter } from '../../src/jit/custom_call/ptx.js';

/** The assembler: $PTXAS, on the path, or of an installed CUDA; null where there is none. */
export function findPtxas(): string | null {
  const folders = [...(process.env['PATH'] ?? '').split(path.delimiter), '/usr/local/cuda/bin'];
  const places = [process.env['PTXAS'], ...folders.map((folder) => path.join(folder, 'ptxas'))];
  return places.find((place) => place !== undefined && place !== '' && fs.existsSync(place)) ?? null;
}

/** A kernel as a text of its own, which in a program is a block in one of XLA's. */
export function entryOf(k: PtxWriter): string {
  const body = k.text().replace(/\$(\d+)/g, (_, i: string) => (i === '0' ? 'none' : `a${Number(i) - 1}`));
  const all = k.parameters.map((_, i) => i);
  return [
    '.version 8.0',
    '.target sm_80',
    '.address_size 64',
    `.visible .entry ${k.name}(${all.map((i) => `.param .u64 p${i}`).join(', ')})`,
    `.reqntid ${32 * k.warps}, 1, 1`,
    '{',
    `.reg .b64 a<${all.length}>;`,
    '.reg .b32 none;',
    ...all.map((i) => `ld.param.u64 a${i}, [p${i}];`),
    body,
    'ret;',
    '}',
    '',
  ].join('\n');
}

/** @returns what the assembler says of texts that it refuses, by name */
export function assemble(ptxas: string, texts: ReadonlyMap<string, string>, target = 'sm_80'): Map<string, string> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'));
  const failed = new Map<string, string>();
  try {
    for (const [name, text] of texts) {
      const file = path.join(dir, 'kernel.ptx');
      fs.writeFileSync(file, text);
      const { status, stderr } = spawnSync(ptxas, [`-arch=${target}`, '-O0', file, '-o', path.join(dir, 'out')], {
        encoding: 'utf8',
      });
      if (status !== 0) failed.set(name, stderr);
    }
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
  return failed;
}
