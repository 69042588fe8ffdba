/** Programs leave nothing behind: slow, so among the long tests. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Program } from '../../../src/jit/index.js';
import { tensorCount, useBackend } from '../../support/backends.js';

const MB = 1e6;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

interface Held {
  /** What JavaScript holds, array buffers and the memory of others behind them included. To the byte, so that a small leak shows. */
  own: number;
  /** What the process has of the machine: leaks of native code too, but what the allocator has left over hides some megabytes. */
  all: number;
}

/**
 * What is held when all that nobody holds any more is collected: the results of 1,000 calls are 4 MB that are not yet. Array buffers are given
 * back after the collection that found them.
 */
async function memoryHeld(): Promise<Held> {
  for (let i = 0; i < 3; i++) {
    collect();
    await sleep(50);
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return { own: heapUsed + external, all: rss };
}

/** @param own bytes that JavaScript may hold more, @param all the process */
async function expectNoMore(before: Held, { own, all }: Held): Promise<void> {
  const now = await memoryHeld();
  expect(now.own - before.own, 'held by JavaScript').lessThan(own);
  expect(now.all - before.all, 'held by the process').lessThan(all);
}

async function build(): Promise<Program> {
  const program = new Program();
  program.variable('w', {
    shape: [1024, 4096],
    dtype: 'float32',
    init: () => new Float32Array(1024 * 4096).fill(1e-3),
  });
  program.variable('s', { shape: [1024], dtype: 'float32' });
  program.define('f', { x: { shape: [1, 4096], dtype: 'float32' } }, ({ x }, { w, s }) => {
    const y = tf.tanh(tf.add(tf.matMul(x as tf.Tensor2D, w as tf.Tensor2D, false, true), s!));
    return { outputs: { y }, assign: { s: tf.reshape(y, [1024]) } };
  });
  await program.compile();
  return program;
}

describe('programs over time', function () {
  this.timeout(600000);
  before(() => useBackend('tensorflow'));

  it('run 4,000 times without growing', async () => {
    const program = await build();
    const x = new Float32Array(4096).fill(0.01);
    // the allocator's own stores grow by 16 MB in the first 2,000 calls, and then no more
    for (let i = 0; i < 2000; i++) program.callSync('f', { x });
    const tensors = tensorCount();
    const memory = await memoryHeld();
    for (let i = 0; i < 4000; i++) program.callSync('f', { x });
    expect(tensorCount()).eql(tensors);
    // a result of 4 KiB kept from each call would be 16 MB
    await expectNoMore(memory, { own: 1 * MB, all: 8 * MB });
    program.dispose();
  });

  it('run 10,000 times as promises without growing, failed calls among them', async () => {
    const program = await build();
    const x = new Float32Array(4096).fill(0.01);
    const rounds = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        await Promise.all([program.call('f', { x }), program.call('f', { x }, []).catch(() => undefined)]);
        tf.dispose(await program.run('f', { x }));
      }
    };
    await rounds(500);
    const tensors = tensorCount();
    const memory = await memoryHeld();
    await rounds(5000);
    expect(tensorCount()).eql(tensors);
    // a result of 4 KiB kept from each call would be 40 MB
    await expectNoMore(memory, { own: 2 * MB, all: 16 * MB });
    program.dispose();
  });

  it('are made and disposed 50 times without growing', async () => {
    const cycle = async (): Promise<void> => {
      const program = await build();
      for (let i = 0; i < 3; i++) program.callSync('f', { x: new Float32Array(4096) });
      program.dispose();
    };
    for (let i = 0; i < 10; i++) await cycle();
    const tensors = tensorCount();
    const memory = await memoryHeld();
    for (let i = 0; i < 50; i++) await cycle();
    expect(tensorCount()).eql(tensors);
    // One cycle has 17 MB of weights, twice while they are uploaded; 50 leaking ones would be 840 MB.
    await expectNoMore(memory, { own: 2 * MB, all: 40 * MB });
  });
});
