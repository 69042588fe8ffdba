/** Programs over several devices: parts one after another, each with the variables of its device. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DisposedError } from '../../../src/base/errors.js';
import { TracingError } from '../../../src/jit/errors.js';
import { allReduce } from '../../../src/jit/ops/all_reduce.js';
import { PlacedProgram } from '../../../src/jit/program/placed.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { rejection, thrown } from '../../support/errors.js';

const two = { shape: [2], dtype: 'float32' } as const;
const floats = (...values: number[]): Float32Array => Float32Array.from(values);

/** a on device 0 sums what it is given, b on device 1 counts: z = (a + x)·b. */
function declared(): PlacedProgram {
  const program = new PlacedProgram({ name: 'placed', devices: [0, 2], gpu: false });
  program.variable('a', two, 0);
  program.variable('b', { ...two, init: () => floats(1, 1) }, 1);
  program.part('first', 0, { x: two }, ({ x }, { a }) => {
    const y = tf.add(a!, x!);
    return { outputs: { y }, assign: { a: y } };
  });
  program.part('second', 1, { y: two }, ({ y }, { b }) => ({
    outputs: { z: tf.mul(y!, b!) },
    assign: { b: tf.add(b!, 1) },
  }));
  return program;
}

describe('PlacedProgram', function () {
  this.timeout(60_000);
  before(() => useBackend('tensorflow'));

  it('runs parts in order, once and several times, and keeps what they assign', async () => {
    const before = tensorCount();
    const program = declared();
    const parts = ['first', 'second'];
    const [inputs, outputs] = [{ x: two }, ['z', 'y']];
    program.define('one', { inputs, parts, outputs });
    program.define('silent', { inputs, parts });
    for (const order of ['whole', 'parts'] as const)
      program.define(order, { inputs, parts, outputs, repeat: { times: 3, each: ['x'], order } });
    program.define('carried', {
      inputs,
      parts,
      outputs: ['y'],
      carry: { x: 'z' },
      repeat: { times: 2, order: 'whole' },
    });
    await program.compile();
    try {
      const state = async (): Promise<number[][]> => (await program.readAll(['a', 'b'])).map((v) => [...(v as Float32Array)]); // prettier-ignore
      for (const order of ['whole', 'parts']) {
        await program.zeroAll(['a']);
        program.assign('b', floats(1, 1));
        const { z, y } = await program.call(order, { x: floats(1, 2, 3, 4, 5, 6) });
        expect([...y!], order).to.deep.equal([1, 2, 4, 6, 9, 12]);
        expect([...z!], order).to.deep.equal([1, 2, 8, 12, 27, 36]);
        expect(await state(), order).to.deep.equal([[9, 12], [4, 4]]); // prettier-ignore
      }
      await program.assignAll({ a: () => floats(0, 1), b: async () => Promise.resolve(floats(2, 2)) });
      const { z, ...others } = await program.call('one', { x: [1, 1] }, ['z']);
      expect([[...z!], Object.keys(others)]).to.deep.equal([[2, 4], []]); // prettier-ignore
      expect(await program.call('silent', { x: [1, 1] })).to.deep.equal({});
      expect(await state()).to.deep.equal([[2, 3], [4, 4]]); // prettier-ignore
      // y = 2 + 1 and 3 + 1, z = 4·y; then y = a + z
      expect([...(await program.call('carried', { x: [1, 1] }))['y']!]).to.deep.equal([3, 4, 15, 20]);
      expect(program.deviceOf('b')).to.equal(1);
    } finally {
      program.dispose();
    }
    expect(tensorCount()).to.deep.equal(before);
  });

  it('cuts along an axis what it repeats over, and puts together what it gives', async () => {
    const program = new PlacedProgram({ name: 'pieces', devices: [0, 1], gpu: false });
    const piece = { shape: [2, 2], dtype: 'float32' } as const;
    program.variable('total', two, 0);
    program.part('sums', 0, { x: piece }, ({ x }, { total }) => {
      const next = tf.add(total!, tf.sum(x!, 1));
      return { outputs: { y: tf.add(x!, 1), sum: next }, assign: { total: next } };
    });
    program.part('doubles', 1, { y: piece }, ({ y }) => ({ outputs: { z: tf.mul(y!, 2) } }));
    program.define('three', {
      ...{ inputs: { x: piece }, parts: ['sums', 'doubles'], outputs: ['z', 'sum'] },
      repeat: { times: 3, order: 'parts', along: { x: 1, z: 1 } },
    });
    await program.compile();
    try {
      const { z, sum } = await program.call('three', { x: floats(1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60) });
      expect([...z!]).to.deep.equal([4, 6, 8, 10, 12, 14, 22, 42, 62, 82, 102, 122]);
      expect([...sum!]).to.deep.equal([3, 30, 10, 100, 21, 210]);
    } finally {
      program.dispose();
    }
  });

  it('begins work on all devices at once, in which they tell one another sums', async () => {
    const program = new PlacedProgram({ name: 'together', devices: [0, 2], gpu: false });
    program.variable('a', { ...two, init: () => floats(1, 2) }, 0);
    program.variable('b', { ...two, init: () => floats(10, 20) }, 1);
    const { group } = program;
    // device 0 asks with a + x, device 1 answers with what it heard and b
    program.defineTogether('talk', { x: two }, 1, (k) => ({ x }, vars) => {
      const asked = allReduce(k === 0 ? tf.add(vars['a']!, x!) : tf.zeros([2]), group);
      // nobody leaves out a sum that what follows is made of
      const answer = allReduce(k === 1 ? tf.add(asked, vars['b']!) : tf.mul(asked, 0), group);
      const assign: Record<string, tf.Tensor> = k === 0 ? { a: answer } : { b: tf.add(vars['b']!, 1) };
      return { outputs: { answer }, assign };
    });
    program.defineLoop('twice', { body: 'talk', steps: 2, each: ['x'] });
    program.defineLoop('fed', { body: 'talk', steps: 2, feed: { x: 'answer' } });
    await program.compile();
    try {
      expect([...(await program.call('talk', { x: [1, 1] }))['answer']!]).to.deep.equal([12, 23]);
      // 12 + 1 + 11 and 24 + 2 + 12; 23 + 1 + 21 and 45 + 2 + 22
      expect([...(await program.call('twice', { x: [1, 1, 2, 2] }))['answer']!]).to.deep.equal([24, 45, 38, 69]);
      // 38 + 0 + 13, then twice that and 14
      expect([...(await program.call('fed', { x: [0, 0] }))['answer']!]).to.deep.equal([51, 92, 116, 208]);
      expect((await program.readAll(['a', 'b'])).map((v) => [...(v as Float32Array)])).to.deep.equal([[116, 208], [15, 25]]); // prettier-ignore
    } finally {
      program.dispose();
    }
    const other = new PlacedProgram({ name: 'together', devices: [0, 1], gpu: false });
    other.defineTogether('talk', { x: two }, 0, (k) => ({ x }) => ({
      outputs: { y: k === 0 ? allReduce(x!, other.group) : x! },
    }));
    expect((await rejection(other.compile())).message).to.match(/different numbers of sums: 1, 0/);
    const third = new PlacedProgram({ name: 'together', devices: [0, 1], gpu: false });
    third.defineLoop('loop', { body: 'none', steps: 2 });
    expect((await rejection(third.compile())).message).to.match(/there is no function 'none'/);
  });

  it('says what does not fit', async () => {
    const refused = async (fn: Parameters<PlacedProgram['define']>[1]): Promise<string> => {
      const program = declared();
      program.define('f', fn);
      const error = await rejection(program.compile());
      expect(error).to.be.instanceOf(TracingError);
      return error.message;
    };
    expect(await refused({ inputs: {}, parts: ['first'] })).to.match(
      /the part 'first' takes 'x', float32\[2\], and is given none/,
    );
    expect(await refused({ inputs: { x: { ...two, shape: [3] } }, parts: ['first'] })).to.match(
      /is given float32\[3\]/,
    );
    expect(await refused({ inputs: { x: two }, parts: ['third'] })).to.match(/no part 'third'/);
    expect(await refused({ inputs: { x: two }, parts: ['first'], outputs: ['z'] })).to.match(/no part gives 'z'/);
    const program = declared();
    program.define('f', { inputs: { x: two }, parts: ['first'], outputs: ['y'] });
    for (const twice of [() => program.variable('a', two, 1), () => program.define('f', { inputs: {}, parts: [] })])
      expect(thrown(twice).message).to.match(/the name is taken/);
    expect((await rejection(program.call('f', { x: [1, 2] }))).message).to.match(/compile\(\) first/);
    await program.compile();
    for (const [call, message] of [
      [() => program.call('g'), /no function 'g'/],
      [() => program.call('f'), /the input 'x' is missing/],
      [() => program.call('f', { x: [1] }), /1 values/],
      [() => program.call('f', { x: [1, 2] }, ['w']), /no output 'w'/],
      [() => program.readAll(['c']), /no variable 'c'/],
      [() => program.assignAll({ a: () => floats(1) }), /got 4 bytes, expected 8/],
    ] as const) {
      const error = await rejection(call());
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message).to.match(message);
    }
    program.dispose();
    expect(await rejection(program.call('f', { x: [1, 2] }))).to.be.instanceOf(DisposedError);
    const other = declared();
    other.part('foreign', 0, {}, (_, { b }) => ({ outputs: { b: b! } }));
    other.define('f', { inputs: {}, parts: ['foreign'] });
    expect((await rejection(other.compile())).message).to.match(/reads the variable 'b', which was not declared/);
  });
});
