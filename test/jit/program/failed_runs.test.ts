/** Variables after a call that fails for want of memory. */
import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../../../src/base/errors.js';
import { Program } from '../../../src/jit/index.js';
import { onGpu } from '../../../src/runtime/index.js';
import { useBackend } from '../../support/backends.js';
import { rejection, thrown } from '../../support/errors.js';

/** x·xᵀ of so many numbers is more than machines have. */
const MANY = 800_000;

/** v becomes v + 1; `huge` takes more memory than there is for it. */
function counter(size: number): Program {
  const program = new Program({ name: 'counter' });
  program.variable('v', { shape: [size], dtype: 'float32' });
  program.variable('w', { shape: [4], dtype: 'float32', init: () => Float32Array.of(1, 2, 3, 4) });
  program.define('next', {}, (_, { v }) => ({ outputs: {}, assign: { v: tf.add(v!, 1) } }));
  program.define('huge', { x: { shape: [MANY, 1], dtype: 'float32' } }, ({ x }, { v }) => {
    const square = tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D, false, true); // [MANY, MANY]
    return { outputs: { y: tf.sum(tf.matMul(square, x as tf.Tensor2D)) }, assign: { v: tf.add(v!, 1) } };
  });
  program.define('first', {}, (_, { v }) => ({ outputs: { y: tf.slice(v!, 0, 1) } }));
  return program;
}

describe('a call that fails for want of memory', function () {
  before(() => useBackend('tensorflow'));
  this.timeout(60_000);
  const x = new Float32Array(MANY).fill(1);

  it('leaves what it assigns as it was, and the program usable', async () => {
    const program = counter(2 ** 20);
    await program.compile();
    await program.run('next');
    for (const again of [false, true]) {
      const failed = again ? await rejection(program.run('huge', { x })) : thrown(() => program.runSync('huge', { x }));
      expect(failed, String(again)).to.be.instanceOf(DeviceError);
      expect(failed.message).to.match(/huge.*not enough memory/);
      expect([...new Set(program.read('v') as Float32Array)]).to.deep.equal([1]);
    }
    // calls that were given meanwhile come after it, in their order
    const calls = [program.run('huge', { x }), program.run('next'), program.call('first'), program.run('next')];
    const ended = await Promise.allSettled(calls);
    expect(ended.map(({ status }) => status)).to.deep.equal(['rejected', 'fulfilled', 'fulfilled', 'fulfilled']);
    expect((ended[2] as PromiseFulfilledResult<{ y: Float32Array }>).value.y[0]).to.equal(2);
    expect([...new Set(program.read('v') as Float32Array)]).to.deep.equal([3]);
    program.dispose();
  });

  it('tells of large variables that it has lost, for good', async function () {
    if (onGpu()) this.skip(); // there "large" is a part of the card's memory
    const program = counter(2 ** 26 + 1);
    await program.compile();
    const failed = (await rejection(program.run('huge', { x }))) as DeviceError;
    expect(failed).to.be.instanceOf(DeviceError);
    expect(failed.message).to.match(
      /^counter: the values of v are lost since a call failed \(.*not enough memory.*load it again\.$/,
    );
    expect(failed.data).to.deep.equal({ lost: ['v'] });
    for (const later of [() => program.runSync('next'), () => program.read('w'), () => program.zero(['v'])])
      expect(later).to.throw(DeviceError, /the values of v are lost/);
    program.dispose();
    // its memory is given to others, and nothing of it is freed once more
    for (let i = 0; i < 2; i++) {
      const other = counter(2 ** 26 + 1);
      await other.compile();
      await other.run('next');
      expect((await other.call('first'))['y']![0]).to.equal(1);
      other.dispose();
    }
  });
});
