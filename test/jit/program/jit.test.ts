import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { DisposedError } from '../../../src/base/errors.js';
import { TracingError } from '../../../src/jit/errors.js';
import { jit, Program, statelessNormal, statelessUniform, type Nest } from '../../../src/jit/index.js';
import { tensorCount, useBackend } from '../../support/backends.js';

interface Net {
  [key: string]: Nest;
  params: tf.Tensor[];
  m: tf.Tensor[];
  v: tf.Tensor[];
}

function mlpLoss(params: tf.Tensor[], x: tf.Tensor, y: tf.Tensor): tf.Scalar {
  const [w1, b1, w2, b2] = params as [tf.Tensor2D, tf.Tensor, tf.Tensor2D, tf.Tensor];
  const hidden = tf.relu(tf.add(tf.matMul(x as tf.Tensor2D, w1), b1));
  const logits = tf.add(tf.matMul(hidden, w2), b2);
  return tf.neg(tf.mean(tf.sum(tf.mul(tf.logSoftmax(logits as tf.Tensor2D), y), -1))) as tf.Scalar;
}

/** AdamW of Loshchilov and Hutter (2019), as a pure function. */
function adamw(net: Net, x: tf.Tensor, y: tf.Tensor, step: tf.Tensor): { net: Net; loss: tf.Tensor } {
  const [lr, b1, b2, eps, decay] = [1e-2, 0.9, 0.999, 1e-8, 0.1];
  const { value: loss, grads } = tf.valueAndGrads((...p: tf.Tensor[]) => mlpLoss(p, x, y))(net.params);
  const m = net.m.map((a, i) => tf.add(tf.mul(a, b1), tf.mul(grads[i]!, 1 - b1)));
  const v = net.v.map((a, i) => tf.add(tf.mul(a, b2), tf.mul(tf.square(grads[i]!), 1 - b2)));
  const params = net.params.map((p, i) => {
    const mh = tf.div(m[i]!, tf.sub(1, tf.pow(b1, step)));
    const vh = tf.div(v[i]!, tf.sub(1, tf.pow(b2, step)));
    return tf.sub(tf.mul(p, 1 - lr * decay), tf.mul(tf.div(mh, tf.add(tf.sqrt(vh), eps)), lr));
  });
  return { net: { params, m, v }, loss };
}

function newNet(): Net {
  const shapes = [[4, 16], [16], [16, 3], [3]];
  const params = shapes.map((s, i) => tf.randomNormal(s, 0, 0.5, 'float32', i + 1));
  return { params, m: params.map((p) => tf.zerosLike(p)), v: params.map((p) => tf.zerosLike(p)) };
}

describe('jit', () => {
  before(() => useBackend('tensorflow'));

  it('refuses what is asynchronous, at once, and nothing fails afterwards', async () => {
    const unhandled: unknown[] = [];
    const note = (error: unknown): void => void unhandled.push(error);
    process.on('unhandledRejection', note);
    try {
      const x = tf.tensor1d([1, 0, 2]);
      const bad: [name: string, fn: (x: tf.Tensor) => unknown, message: RegExp][] = [
        ['whereAsync, returned', (x) => tf.whereAsync(tf.cast(x, 'bool')), /read while tracing|returned a promise/],
        ['whereAsync, used', (x) => tf.gather(x, tf.whereAsync(tf.cast(x, 'bool')) as never), /read while tracing/],
        ['whereAsync, forgotten', (x) => (void tf.whereAsync(tf.cast(x, 'bool')), x), /read while tracing/],
        [
          'booleanMaskAsync',
          (x) => tf.booleanMaskAsync(x, tf.cast(x, 'bool')),
          /read while tracing|returned a promise/,
        ],
        ['data()', (x) => (void x.data(), x), /read while tracing/],
        ['async', async (x) => Promise.resolve(tf.neg(x)), /returned a promise/],
        ['async that fails', async () => Promise.reject(new Error('later')), /returned a promise/],
        ['a promise within', (x) => [x, Promise.reject(new Error('later'))], /holds a Promise/],
      ];
      for (const [name, fn, message] of bad) {
        const compiled = jit(fn as (x: tf.Tensor) => tf.Tensor, { name: 'mine' });
        expect(() => compiled(x), name).to.throw(message);
        compiled.dispose();
        const program = new Program();
        if (!message.source.includes('holds'))
          expect(
            () => program.define('f', { x: { shape: [3], dtype: 'float32' } }, ({ x }) => fn(x!) as never),
            name,
          ).to.throw();
        program.dispose();
      }
      const good = jit((x: tf.Tensor) => tf.neg(x));
      expect([...good(x).dataSync()]).to.deep.equal([-1, -0, -2]);
      good.dispose();
      x.dispose();
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(unhandled).to.deep.equal([]);
    } finally {
      process.off('unhandledRejection', note);
    }
  });

  it('trains an MLP with AdamW as eager does, within 1e-5 over 20 steps', () => {
    const step = jit(adamw);
    let [a, b] = [newNet(), newNet()];
    const x = tf.randomNormal([8, 4], 0, 1, 'float32', 7);
    const y = tf.oneHot(tf.tensor1d([0, 1, 2, 0, 1, 2, 0, 1], 'int32'), 3).toFloat();
    let first = 0;
    let last = 0;
    for (let i = 1; i <= 20; i++) {
      const eager = adamw(a, x, y, tf.scalar(i));
      const compiled = step(b, x, y, tf.scalar(i));
      last = compiled.loss.dataSync()[0]!;
      if (i === 1) first = last;
      expect(last).closeTo(eager.loss.dataSync()[0]!, 1e-5);
      [a, b] = [eager.net, compiled.net];
    }
    expect(last).lessThan(first * 0.8);
    a.params.forEach((p, i) => expect(tf.max(tf.abs(tf.sub(p, b.params[i]!))).dataSync()[0]).lessThan(1e-5));
    expect(step.cacheSize).equal(1);
    step.dispose();
    expect(() => step(b, x, y, tf.scalar(1))).throw(DisposedError);
  });

  it('compiles once per shape, dtype, structure and static argument', () => {
    let traces = 0;
    const scale = jit((x: { a: tf.Tensor; b?: tf.Tensor }, k: number) => {
      traces++;
      return [tf.mul(x.a, k), { same: x.b ?? null, k }] as const;
    });
    const [y, rest] = scale({ a: tf.tensor1d([1, 2]) }, 3);
    expect([...y.dataSync()]).eql([3, 6]);
    expect(rest.same).equal(null);
    expect(rest.k).equal(3);
    scale({ a: tf.tensor1d([5, 6]) }, 3);
    expect(traces).equal(1);
    scale({ a: tf.tensor1d([5, 6]) }, 4);
    scale({ a: tf.tensor1d([5, 6, 7]) }, 4);
    scale({ a: tf.tensor1d([5, 6], 'int32') }, 4);
    expect([...scale({ a: tf.tensor1d([1, 2]), b: tf.scalar(9) }, 4)[1].same!.dataSync()]).eql([9]);
    expect(traces).equal(5);
    expect(scale.cacheSize).equal(5);
    scale.dispose();
  });

  it('leaves no tensors behind', () => {
    const f = jit((x: tf.Tensor) => tf.softmax(tf.square(x)));
    const x = tf.tensor1d([1, 2, 3]);
    f(x).dispose();
    const before = tensorCount();
    for (let i = 0; i < 20; i++) f(x).dispose();
    expect(tensorCount()).eql(before);
    expect(() => jit((t: tf.Tensor) => tf.scalar(t.dataSync()[0]!))(x)).throw(TracingError);
    expect(tensorCount()).eql(before);
    f.dispose();
    x.dispose();
  });

  it('refuses tensors from outside unless they are declared, and takes their values of the moment', () => {
    const w = tf.variable(tf.tensor1d([1, 2]));
    expect(() => jit((x: tf.Tensor) => tf.mul(x, w))(tf.scalar(2))).throw(TracingError, 'from outside');
    const f = jit((x: tf.Tensor) => tf.mul(x, w), { captures: [w] });
    expect([...f(tf.scalar(2)).dataSync()]).eql([2, 4]);
    w.assign(tf.tensor1d([5, 6]));
    expect([...f(tf.scalar(2)).dataSync()]).eql([10, 12]);
    f.dispose();
    w.dispose();
  });

  it('says what to do when traced code reads, branches on data, draws unseeded numbers or assigns', () => {
    const x = tf.tensor1d([1, 2]);
    const w = tf.variable(tf.tensor1d([1, 2]));
    expect(() => jit((t: tf.Tensor) => tf.scalar(t.dataSync()[0]!))(x)).throw(TracingError, 'tf.where');
    expect(() => jit(() => tf.randomNormal([2]))()).throw(TracingError, 'statelessUniform');
    expect(() => jit((t: tf.Tensor) => tf.dropout(t, 0.5))(x)).throw(TracingError, 'unseeded');
    expect(() => jit((t: tf.Tensor) => (w.assign(t as tf.Tensor1D), t))(x)).throw(TracingError, 'Variable');
    expect(() => jit((t: tf.Tensor) => tf.unique(t).values)(x)).throw(TracingError, 'UniqueV2');
    expect(() => jit((t: tf.Tensor) => tf.multinomial(t as tf.Tensor1D, 1, 3))(x)).throw(TracingError, 'Gumbel');
    expect([...w.dataSync()]).eql([1, 2]);
    expect(Math.random()).within(0, 1);
    expect(tf.getBackend()).equal('tensorflow');
    w.dispose();
  });

  it('traces variableGrads, customGrad and nested jit', () => {
    const inner = jit((x: tf.Tensor) => tf.mul(x, 2));
    const clip = tf.customGrad((x) => ({
      value: tf.square(x as tf.Tensor),
      gradFunc: (dy) => tf.clipByValue(dy, -1, 1),
    }));
    const f = jit((x: tf.Tensor) => tf.grad((t) => tf.sum(tf.mul(clip(inner(t)), 5)))(x));
    expect([...f(tf.tensor1d([1, 2])).dataSync()]).eql([2, 2]);
    expect(inner.cacheSize).equal(0);
    f.dispose();
  });

  it('draws random numbers that depend on the seed alone', () => {
    const f = jit((seed: tf.Tensor) => [statelessUniform([1000], seed, -1, 1), statelessNormal([1000], seed)]);
    const draw = (a: number): number[][] => f(tf.tensor1d([a, 5], 'int32')).map((t) => [...t.dataSync()]);
    const [u, n] = draw(1) as [number[], number[]];
    expect(draw(1)).eql([u, n]);
    expect(draw(2)[0]).not.eql(u);
    expect(Math.min(...u)).within(-1, -0.98);
    expect(Math.max(...u)).within(0.98, 1);
    const mean = n.reduce((s, v) => s + v, 0) / 1000;
    expect(mean).within(-0.1, 0.1);
    expect(n.reduce((s, v) => s + (v - mean) ** 2, 0) / 1000).within(0.85, 1.15);
    f.dispose();
  });
});
