/** Programs that several devices run at once, and what they add up: on logical devices of the processor, where sums are between functions. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DisposedError } from '../../../src/base/errors.js';
import { TracingError } from '../../../src/jit/errors.js';
import { allReduce } from '../../../src/jit/ops/all_reduce.js';
import { onDevice, ReplicatedProgram } from '../../../src/jit/program/replicated.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { rejection, thrown } from '../../support/errors.js';

const two = { shape: [2], dtype: 'float32' } as const;
const floats = (...values: number[]): Float32Array => Float32Array.from(values);

/** Device k has a = [k + 1, 10·(k + 1)]. `add` gives the sum of a·x over devices, and adds what it gave to a. */
function declared(devices: readonly number[]): ReplicatedProgram {
  const program = new ReplicatedProgram({ name: 'replicated', devices, gpu: false, sums: 'between' });
  program.variable('a', (k) => ({ ...two, init: () => floats(k + 1, 10 * (k + 1)) }));
  program.variable('calls', two);
  program.define('add', { x: two }, ({ x }, { a, calls }) => {
    const own = tf.mul(a!, x!);
    const sum = allReduce(own, program.group);
    const twice = allReduce(tf.mul(sum, 0.5), program.group); // of two devices: the same once more
    return { outputs: { sum, twice }, assign: { a: tf.add(a!, sum), calls: tf.add(calls!, 1) } };
  });
  program.define('alone', {}, (_, { a }) => ({ outputs: { doubled: tf.mul(a!, 2) } }));
  program.defineLoop('thrice', { body: 'add', steps: 3, each: ['x'] });
  program.defineLoop('carried', { body: 'add', steps: 2, feed: { x: 'sum' } });
  program.define('count', { x: two }, ({ x }, { calls }) => ({ outputs: { y: tf.add(x!, 1) }, assign: { calls: tf.add(calls!, x!) } })); // prettier-ignore
  program.defineLoop('counts', { body: 'count', steps: 4, feed: { x: 'y' } });
  return program;
}

describe('ReplicatedProgram', function () {
  this.timeout(60_000);
  before(() => useBackend('tensorflow'));

  it('adds up what devices have, in one call and in several, and keeps variables apart', async () => {
    const before = tensorCount();
    const program = declared([0, 2]);
    await program.compile();
    try {
      const all = ['a', onDevice('a', 0), onDevice('a', 1), onDevice('calls', 1)];
      const state = async (): Promise<number[][]> => (await program.readAll(all)).map((v) => [...(v as Float32Array)]);
      expect(await state()).to.deep.equal([[1, 10], [1, 10], [2, 20], [0, 0]]); // prettier-ignore
      const { sum, twice } = await program.call('add', { x: floats(1, 2) });
      expect([[...sum!], [...twice!]]).to.deep.equal([[3, 60], [3, 60]]); // prettier-ignore
      expect(await state()).to.deep.equal([[4, 70], [4, 70], [5, 80], [1, 1]]); // prettier-ignore
      // sums of (4, 5), (13, 14), then (40, 41) and what follows
      const thrice = await program.call('thrice', { x: floats(1, 0, 1, 0, 1, 1) }, ['sum']);
      expect([...thrice['sum']!]).to.deep.equal([9, 0, 27, 0, 81, 150]);
      expect((await state())[2]).to.deep.equal([5 + 9 + 27 + 81, 80 + 150]);
      await program.zeroAll(['a', 'calls']);
      expect(await state()).to.deep.equal([[0, 0], [0, 0], [0, 0], [0, 0]]); // prettier-ignore
      await program.assignAll({ a: () => floats(1, 1), [onDevice('a', 1)]: async () => Promise.resolve(floats(3, 0)) });
      expect([...(await program.call('carried', { x: floats(1, 1) }))['sum']!]).to.deep.equal([4, 1, 4 * 12, 3]);
      program.assign(onDevice('a', 0), floats(7, 8));
      expect([...(await program.call('alone'))['doubled']!]).to.deep.equal([14, 16]);
      expect([...(await program.call('counts', { x: floats(0, 1) }))['y']!]).to.deep.equal([1, 2, 2, 3, 3, 4, 4, 5]);
      expect(tensorCount()).to.deep.equal(before);
    } finally {
      program.dispose();
    }
  });

  it('adds up three and one', async () => {
    for (const devices of [[0, 1, 2], [1]]) {
      const program = declared(devices);
      await program.compile();
      const { sum } = await program.call('add', { x: floats(1, 1) });
      expect([...sum!]).to.deep.equal(devices.length === 3 ? [6, 60] : [1, 10]);
      program.dispose();
    }
  });

  it('refuses what does not fit', async () => {
    const program = declared([0, 1]);
    expect(thrown(() => program.variable('a', two))).to.be.instanceOf(TracingError);
    expect(thrown(() => program.define('add', {}, () => ({})))).to.be.instanceOf(TracingError);
    program.defineLoop('counted', { body: 'add', steps: 2, count: 'n' });
    expect(await rejection(program.compile())).to.be.instanceOf(TracingError);
    const other = declared([0, 1]);
    await other.compile();
    for (const name of ['b', onDevice('a', 2), 'x:y']) expect(await rejection(other.readAll([name])), name).to.be.instanceOf(ArgumentError); // prettier-ignore
    expect(thrown(() => other.assign('a', floats(1)))).to.be.instanceOf(ArgumentError);
    expect(await rejection(other.call('add', {}))).to.be.instanceOf(ArgumentError);
    other.dispose();
    other.dispose();
    expect(await rejection(other.call('add', { x: floats(1, 1) }))).to.be.instanceOf(DisposedError);
  });
});
