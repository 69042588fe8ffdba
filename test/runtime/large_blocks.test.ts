/** Large blocks of TensorFlow's go back to the system in pieces (native/large_blocks.cc), and sessions go on threads of their own. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { requireNear } from '../../src/base/package_files.js';
import { Program } from '../../src/jit/index.js';
import { addonPath, runtimeDir } from '../../src/runtime/paths.js';
import { useBackend } from '../support/backends.js';
import { memoryOf } from '../support/process_memory.js';

const MB = 1e6;

describe('memory of TensorFlow', () => {
  before(async function () {
    if (process.platform !== 'linux') this.skip();
    await useBackend('tensorflow');
  });

  /** How many blocks went in pieces so far. */
  const dropped = (): number => {
    const guard = requireNear(path.join(path.dirname(addonPath(runtimeDir('cpu')!)), 'stderr_guard.node')) as {
      largeBlocksDropped(): number;
    };
    return guard.largeBlocksDropped();
  };

  /** A function that makes tensors of 40 and more MB, op by op, and gives their sum. */
  async function program(): Promise<Program> {
    const made = new Program();
    made.variable('w', { shape: [10 * MB], dtype: 'float32', init: () => new Float32Array(10 * MB).fill(2) });
    made.define(
      'f',
      { x: { shape: [], dtype: 'float32' } },
      ({ x }, { w }) => ({ outputs: { y: tf.max(tf.add(w!, x!)) } }),
      { xla: false },
    );
    await made.compile();
    return made;
  }

  it('goes in pieces where blocks are large, after a run and with a session', async () => {
    const made = await program();
    const before = dropped();
    expect((await made.call('f', { x: 3 }))['y']![0]).to.equal(5);
    expect(dropped()).to.be.greaterThan(before);
    expect((await made.call('f', { x: 4 }))['y']![0]).to.equal(6);
    made.dispose();
  });

  it('goes with a session that is closed, without a wait', async () => {
    const made = await program();
    await made.call('f', { x: 0 });
    const held = memoryOf('RssAnon')!;
    const before = dropped();
    made.dispose();
    for (let i = 0; i < 200 && dropped() === before; i++) await sleep(10);
    expect(dropped()).to.be.greaterThan(before);
    for (let i = 0; i < 200 && memoryOf('RssAnon')! > held - 30 * MB; i++) await sleep(10);
    expect(memoryOf('RssAnon')).to.be.lessThan(held - 30 * MB);
  });
});
