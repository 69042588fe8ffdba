import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DeviceError, DisposedError } from '../../../src/base/errors.js';
import { PIECE_MS } from '../../../src/base/pieces.js';
import { jit, Program, TracingError } from '../../../src/jit/index.js';
import { useBackend } from '../../support/backends.js';
import { rejection } from '../../support/errors.js';

/** A program that counts its calls and works for as long as `steps` says. */
async function counting(steps: number): Promise<Program> {
  const program = new Program({ name: 'counting' });
  program.variable('calls', { shape: [], dtype: 'float32' });
  program.define(
    'work',
    { x: { shape: [256, 256], dtype: 'float32' }, id: { shape: [], dtype: 'float32' } },
    ({ x, id }, { calls }) => {
      let y = x as tf.Tensor2D;
      for (let i = 0; i < steps; i++) y = tf.mul(tf.matMul(y, x as tf.Tensor2D), 1 / 256);
      const count = tf.add(calls!, 1);
      return { outputs: { id: id!, count, y: tf.sum(y) }, assign: { calls: count } };
    },
  );
  await program.compile();
  return program;
}

const ones = new Float32Array(256 * 256).fill(1);

describe('Programs as promises', () => {
  before(() => useBackend('tensorflow'));

  it('are done in the order of the calls, and leave the event loop free, while XLA compiles too', async () => {
    const program = await counting(40);
    let fired = 0;
    const timer = setInterval(() => fired++, 5);
    const began = performance.now();
    const calls = Array.from({ length: 6 }, (_, id) => program.call('work', { x: ones, id }));
    const made = performance.now() - began;
    const outs = await Promise.all(calls);
    clearInterval(timer);
    const ms = performance.now() - began;
    expect(outs.map(({ id, count }) => [id![0], count![0]])).to.deep.equal(
      Array.from({ length: 6 }, (_, i) => [i, i + 1]),
    );
    expect(outs[0]!['y']![0]).to.be.closeTo(65536, 1); // 1's give 1's
    expect(made).to.be.lessThan(ms / 2);
    expect(fired).to.be.greaterThan(ms / 100);
    program.dispose();
  });

  it('take what a blocking call waits for first', async () => {
    const program = await counting(4);
    const first = program.call('work', { x: ones, id: 0 });
    expect(program.callSync('work', { x: ones, id: 1 })['count']![0]).to.equal(2);
    expect((await first)['count']![0]).to.equal(1);
    expect(program.read('calls')[0]).to.equal(2);
    program.dispose();
  });

  it('read and zero variables with the event loop free, as the blocking forms do', async () => {
    const program = new Program();
    const size = 2 ** 21;
    const values = Float32Array.from({ length: size }, (_, i) => i % 97);
    program.variable('a', { shape: [size], dtype: 'float32', init: () => values });
    program.variable('b', { shape: [size], dtype: 'float32', init: () => values });
    program.variable('few', { shape: [3], dtype: 'uint8', init: () => Uint8Array.of(1, 2, 3) });
    await program.compile();
    let turns = 0;
    let ended = false;
    const count = (): void => {
      turns++;
      if (!ended) setImmediate(count);
    };
    setImmediate(count);
    const [b, few] = await program.readAll(['b', 'few']);
    const read = turns;
    await program.zeroAll(['a']);
    ended = true;
    expect(b).to.deep.equal(values);
    expect(few).to.deep.equal(Uint8Array.of(1, 2, 3));
    expect((await program.readAllBytes(['few']))[0]).to.deep.equal(program.readBytes('few'));
    expect(read).to.be.greaterThan(0);
    expect(program.read('a').every((value) => value === 0)).to.equal(true);
    expect(program.read('b')).to.deep.equal(values);
    expect(await rejection(program.readAll(['c']))).to.be.instanceOf(ArgumentError);
    const late = program.readAll(['a', 'b']);
    program.dispose();
    expect(await rejection(late)).to.be.instanceOf(DisposedError);
  });

  it('gives tensors that are the caller’s', async () => {
    const program = await counting(1);
    const before = tf.memory().numTensors;
    const out = await program.run('work', { x: tf.ones([256, 256]), id: tf.scalar(3) });
    expect(out['id']!.dataSync()[0]).to.equal(3);
    expect(out['count']!.shape).to.deep.equal([]);
    expect(tf.memory().numTensors).to.equal(before + 5); // two fed, three given
    tf.dispose(out);
    program.dispose();
  });

  it('disposed of in the middle, ends the call that runs and refuses those that wait', async () => {
    const program = await counting(40);
    await program.call('work', { x: ones, id: 0 });
    const told = Array.from({ length: 8 }, (_, id) =>
      program.call('work', { x: ones, id }).then(
        () => null,
        (error: unknown) => error,
      ),
    );
    program.dispose();
    const ends = await Promise.all(told);
    expect(ends.filter((end) => end instanceof DisposedError).length).to.be.greaterThan(5);
    expect(ends.every((end) => end === null || end instanceof DisposedError)).to.equal(true);
    let late: unknown;
    await program.call('work', { x: ones, id: 0 }).catch((error: unknown) => (late = error));
    expect(late).to.be.instanceOf(DisposedError);
  });

  it('disposed of while it is compiled, is gone', async () => {
    const program = new Program({ deferTracing: true });
    program.define('f', { x: { shape: [2], dtype: 'float32' } }, ({ x }) => ({ outputs: { y: tf.neg(x!) } }));
    const compiled = program.compile().catch((error: unknown) => error);
    program.dispose();
    expect(await compiled).to.be.instanceOf(DisposedError);
  });

  it("tell TensorFlow's whole message, and the program stays usable", async () => {
    const name = `gather_${'x'.repeat(600)}`;
    const program = new Program();
    program.define(
      name,
      { i: { shape: [1], dtype: 'int32' } },
      ({ i }) => ({ outputs: { y: tf.gather(tf.tensor1d([5, 6]), i as tf.Tensor1D) } }),
      { xla: false },
    );
    await program.compile();
    const error = await program.call(name, { i: [7] }).catch((e: unknown) => e);
    expect(error).to.be.instanceOf(DeviceError);
    const { message, data } = error as DeviceError;
    expect(message)
      .to.match(/indices\[0\] = 7 is not in \[0, 2\)/)
      .and.not.match(/cut/);
    expect(message.split(name).length).to.be.greaterThan(2); // ours, and TensorFlow's beyond 499 bytes
    expect(data['code']).to.equal(3);
    expect((await program.call(name, { i: [1] }))['y']![0]).to.equal(6);
    program.dispose();
  });

  it('run side by side with others', async () => {
    const programs = await Promise.all([counting(60), counting(60)]);
    for (const program of programs) await program.call('work', { x: ones, id: 0 });
    const ends: string[] = [];
    const many = async (program: Program, who: string): Promise<void> => {
      for (let i = 0; i < 5; i++) {
        await program.call('work', { x: ones, id: i });
        ends.push(who);
      }
    };
    await Promise.all([many(programs[0], 'a'), many(programs[1], 'b')]);
    expect(ends.join('')).to.not.match(/^a{5}|^b{5}/);
    programs.forEach((program) => program.dispose());
  });

  it('jit().run traces a generator in pieces, and gives what a call at once gives', async () => {
    const cube = jit(function* (x: tf.Tensor1D, times: { n: number }) {
      let y: tf.Tensor = x;
      for (let i = 1; i < times.n; i++) {
        const end = performance.now() + PIECE_MS;
        while (performance.now() < end);
        yield;
        y = tf.mul(y, x);
      }
      return { y };
    });
    let turns = 0;
    let ended = false;
    const count = (): void => {
      turns++;
      if (!ended) setImmediate(count);
    };
    setImmediate(count);
    const times = { n: 3 };
    const later = cube.run(tf.tensor1d([2, -3]), times);
    times.n = 1; // the call took the value of its moment
    const { y } = await later;
    ended = true;
    expect(turns).to.be.greaterThan(1);
    expect([...y.dataSync()]).to.deep.equal([8, -27]);
    expect([...cube(tf.tensor1d([1, 4]), { n: 3 }).y.dataSync()]).to.deep.equal([1, 64]);
    expect(cube.cacheSize).to.equal(1);
    // traced at once, and within another
    expect([...cube(tf.tensor1d([1, 4]), { n: 2 }).y.dataSync()]).to.deep.equal([1, 16]);
    const outer = jit((x: tf.Tensor1D) => tf.add(cube(x, { n: 2 }).y, 1));
    expect([...outer(tf.tensor1d([3])).dataSync()]).to.deep.equal([10]);
    const wrong = jit(function* (x: tf.Tensor) {
      yield;
      return tf.scalar(x.dataSync()[0]!);
    });
    expect(await rejection(wrong.run(tf.scalar(1)))).to.be.instanceOf(TracingError);
    for (const fn of [cube, outer, wrong]) fn.dispose();
  });

  it('jit().run compiles once for calls at the same time, and takes arguments as they were', async () => {
    let traces = 0;
    const square = jit((x: tf.Tensor) => {
      traces++;
      return tf.square(x);
    });
    const x = tf.tensor1d([1, 2, 3]);
    const both = Promise.all([square.run(x), square.run(tf.tensor1d([4, 5, 6]))]);
    x.dispose();
    const [a, b] = await both;
    expect([...a.dataSync(), ...b.dataSync()]).to.deep.equal([1, 4, 9, 16, 25, 36]);
    expect([traces, square.cacheSize]).to.deep.equal([1, 1]);
    expect([...square(tf.tensor1d([7, 8, 9])).dataSync()]).to.deep.equal([49, 64, 81]);
    expect(traces).to.equal(1);
    const late = square.run(tf.tensor1d([1, 2])).catch((error: unknown) => error);
    square.dispose();
    expect(await late).to.be.instanceOf(DisposedError);
  });
});
