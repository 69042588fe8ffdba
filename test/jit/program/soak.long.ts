/** Programs leave nothing behind: slow, so among the long tests. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Program } from '../../../src/jit/index.js';
import { tensorCount, useBackend } from '../../support/backends.js';

const MB = 1e6;

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

  it('run 1,000 times without growing', async () => {
    const program = await build();
    const x = new Float32Array(4096).fill(0.01);
    for (let i = 0; i < 100; i++) program.callSync('f', { x });
    const tensors = tensorCount();
    const memory = process.memoryUsage().rss;
    for (let i = 0; i < 1000; i++) program.callSync('f', { x });
    expect(tensorCount()).eql(tensors);
    expect(process.memoryUsage().rss - memory).lessThan(8 * MB);
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
    const memory = process.memoryUsage().rss;
    await rounds(5000);
    expect(tensorCount()).eql(tensors);
    // an output of 4 KiB kept from each call would be 40 MB
    expect(process.memoryUsage().rss - memory).lessThan(16 * MB);
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
    const memory = process.memoryUsage().rss;
    for (let i = 0; i < 50; i++) await cycle();
    expect(tensorCount()).eql(tensors);
    // One cycle has 17 MB of weights, twice while they are uploaded; 50 leaking ones would be 840 MB.
    expect(process.memoryUsage().rss - memory).lessThan(40 * MB);
  });
});
