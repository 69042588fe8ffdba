/** A process that ends in the middle of a run of a program, in the way that its argument says; see ends(). */
import * as tf from '@tensorflow/tfjs';
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Program } from '../../src/jit/index.js';
import { selectBackend } from '../../src/runtime/index.js';

/** How a process may end: by itself, by process.exit(), by an error that nobody catches, or by a signal. */
export const WAYS = ['itself', 'exit', 'error', 'SIGTERM'] as const;
export type Way = (typeof WAYS)[number];

/**
 * Lets processes end, one after another, each a little later in its run.
 *
 * @param handler an addon to load before anything runs: what it registers with exit() makes the end slow, and TensorFlow goes on compiling meanwhile
 * @returns what each did
 */
export function ends(
  way: Way,
  delays: readonly number[],
  handler = '',
): { status: number | null; signal: string | null; stderr: string }[] {
  return delays.map((delay) => {
    const { status, signal, stderr } = spawnSync(
      process.execPath,
      ['--import', 'tsx', fileURLToPath(import.meta.url), way, String(delay), handler],
      { encoding: 'utf8', env: { ...process.env, NODE_NO_WARNINGS: '1' }, timeout: 120_000 },
    );
    return { status, signal, stderr };
  });
}

async function endInMidRun(way: Way, delay: number, handler: string): Promise<void> {
  await selectBackend('cpu');
  if (handler !== '') createRequire(import.meta.url)(handler);
  // the first run of each size compiles, so that some of the ends come while XLA is at work; with a handler it is at that for longer than any end lasts
  const sizes = handler === '' ? [512, 512, 512] : Array.from({ length: 100 }, (_, i) => 64 + i);
  const program = new Program();
  for (const n of new Set(sizes)) {
    program.define(`work${n}`, { x: { shape: [n, n], dtype: 'float32' } }, ({ x }) => {
      let y = x as tf.Tensor2D;
      for (let i = 0; i < 60; i++) y = tf.mul(tf.matMul(y, x as tf.Tensor2D), 1 / n);
      return { outputs: { y: tf.sum(y) } };
    });
  }
  await program.compile();
  const runs = Promise.all(sizes.map((n) => program.call(`work${n}`, { x: new Float32Array(n * n).fill(1) })));
  setTimeout(() => {
    if (way === 'exit') process.exit(3);
    if (way === 'error') throw new Error('thrown on purpose');
    if (way === 'SIGTERM') process.kill(process.pid, 'SIGTERM');
  }, delay);
  const outs = await runs;
  if (way !== 'itself') await new Promise((resolve) => setTimeout(resolve, 60_000));
  process.exitCode = outs.every(({ y }, i) => y![0] === sizes[i]! ** 2) ? 0 : 9;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await endInMidRun(process.argv[2] as Way, Number(process.argv[3]), process.argv[4] ?? '');
