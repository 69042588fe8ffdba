/** Processes that are killed (SIGKILL) while they save over an earlier save: what is there is one of the two, whole. */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { CheckpointError } from '../../../src/base/errors.js';
import { writeFileAtomic } from '../../../src/base/whole_files.js';
import { saveCheckpoint, SafetensorsFile } from '../../../src/checkpoints/index.js';
import { openCheckpoint, validateCheckpoint } from '../../../src/models/checkpoints.js';
import { inspectState } from '../../../src/engine/states/file.js';
import { quantizeCheckpoint } from '../../../src/models/mamba2/index.js';
import { Int8WeightOnlyConfig } from '../../../src/quant/index.js';
import { randomTensors, TINY_CONFIG } from '../../support/checkpoint.js';

export const KINDS = ['save_pretrained', 'shards', 'state', 'quantize'] as const;
const CHILD = fileURLToPath(new URL('child.ts', import.meta.url));
const CONFIG = { ...TINY_CONFIG, hidden_size: 64, num_heads: 8, head_dim: 16, vocab_size: 500 };

/** Starts a child, waits until it has saved once, and kills it some milliseconds later. */
async function killed(args: string[], after: number): Promise<void> {
  const child = spawn(process.execPath, ['--import', 'tsx', '--no-warnings', CHILD, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let errors = '';
  child.stderr.on('data', (text: Buffer) => (errors += text.toString()));
  const ended = new Promise<string | null>((resolve) => child.once('close', (_code, signal) => resolve(signal)));
  await new Promise<void>((resolve) => {
    child.stdout.once('data', () => resolve());
    child.once('close', () => resolve());
  });
  await new Promise((resolve) => setTimeout(resolve, after));
  child.kill('SIGKILL');
  expect(await ended, errors).to.equal('SIGKILL');
}

/** Files that are not whole. */
const unfinished = (dir: string): string[] => fs.readdirSync(dir).filter((name) => name.endsWith('.part'));

/** All tensors' bytes of a folder, as one text to compare. */
async function contents(dir: string): Promise<string> {
  const source = await openCheckpoint(dir);
  try {
    if (!source.config.quantization_config) await validateCheckpoint(source);
    const parts = [];
    for (const name of [...source.tensors.keys()].sort()) parts.push(name, Buffer.from(await source.readBytes(name)));
    return Buffer.concat(parts.map((part) => Buffer.from(part))).toString('base64');
  } finally {
    await source.close();
  }
}

/** Files that a save may be writing at one time: shards of 20 kB, the index and both configurations among them. */
const AT_ONCE = 16;

/** Kills saves of one kind again and again, over what the last one left. @param folder empty */
export async function rounds(kind: (typeof KINDS)[number], count: number, folder: string): Promise<void> {
  const sources = await Promise.all(
    [0, 1].map(async (i) => {
      const dir = path.join(folder, `source-${i}`);
      const tensors = randomTensors(CONFIG).map((tensor) => {
        const data = (tensor.data() as Uint8Array).slice();
        new Float32Array(data.buffer).forEach((value, at, all) => (all[at] = i === 0 ? value : -value));
        return { ...tensor, data: () => data };
      });
      await saveCheckpoint(dir, CONFIG, tensors);
      return dir;
    }),
  );
  const out = path.join(folder, 'out');
  fs.mkdirSync(out);
  const whole: string[] = [];
  for (const [i, source] of sources.entries()) {
    if (kind === 'quantize') {
      const dir = path.join(folder, `whole-${i}`);
      await quantizeCheckpoint(source, dir, new Int8WeightOnlyConfig());
      whole.push(await contents(dir));
    } else if (kind !== 'state') whole.push(await contents(source));
  }
  let most = 0;
  for (let round = 0; round < count; round++) {
    await killed([kind, out, ...sources], (round * 7) % 61);
    const what = `${kind}, round ${round}`;
    // a save removes what the killed one before it left: at most its own are there
    most = Math.max(most, unfinished(out).length);
    expect(most, what).to.be.at.most(AT_ONCE);
    const now = kind === 'state' ? null : await contents(out).catch((error: unknown) => error);
    // shards get their names one by one: there may be no model then, and never one of both saves
    if (kind === 'shards' && now instanceof CheckpointError) expect(now.message, what).to.match(/has no weights/);
    else if (kind !== 'state') expect(whole, what).to.include(now);
    else {
      const file = path.join(out, 'state.safetensors');
      expect((await inspectState(file)).extra.which, what).to.match(/^[01]$/);
      const state = await SafetensorsFile.open(file);
      for (const name of state.entries.keys()) await state.read(name);
      await state.close();
    }
  }
  const last = path.join(out, 'last.txt');
  await writeFileAtomic(last, '');
  expect(unfinished(out), kind).to.deep.equal([]);
}
