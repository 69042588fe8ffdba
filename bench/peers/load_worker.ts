/**
 * Worker: seconds from the start of a new process to the first generated token, the programs compiled before. Each round
 * runs first_token.mjs with the built package in a process of its own.
 */
import { spawnSync } from 'node:child_process';
import * as readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import { packageVersion } from '../../src/runtime/index.js';
import type { Work } from './peer.js';

const script = fileURLToPath(new URL('./first_token.mjs', import.meta.url));
const [kind, ...flags] = process.argv.slice(2);
let work: Work;

function once(): number {
  const began = performance.now();
  const args = ['--no-warnings', script, kind!, work.checkpoint, work.dtype, String(work.tokens), ...flags];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr.slice(-1000));
  return (performance.now() - began) / 1000;
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  try {
    const request = JSON.parse(line) as { start?: Work };
    if (request.start) {
      work = request.start;
      once();
      process.stdout.write(`${JSON.stringify({ version: `tfjs-mamba2 ${packageVersion()}` })}\n`);
    } else process.stdout.write(`${JSON.stringify({ value: once() })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: (error as Error).message })}\n`);
  }
}
