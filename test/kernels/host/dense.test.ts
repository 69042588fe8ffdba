/** The float32 and bfloat16 kernels of CPUs, of random sizes, against their reference in plain loops. */
import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { Program } from '../../../src/jit/index.js';
import { DENSE_INSTRUCTIONS, denseProduct, denseProductBy } from '../../../src/kernels/host/dense.js';
import { denseInstructions } from '../../../src/kernels/index.js';
import { denseProductReference } from '../../../src/kernels/host/reference.js';
import { useBackend } from '../../support/backends.js';
import { lcg } from '../../support/random.js';

/** Sizes that divide badly, then random ones. */
function cases(seed: number): { rows: number; inner: number; out: number }[] {
  const next = lcg(seed);
  const whole = (low: number, high: number): number => low + Math.floor(next() * (high - low + 1));
  const fixed = [
    { rows: 1, inner: 4096, out: 13 },
    { rows: 1, inner: 1024, out: 1030 }, // of more than a MiB, whose weights are asked for ahead and not, in turn
    { rows: 8, inner: 1000, out: 24 },
    { rows: 16, inner: 1000, out: 25 },
    { rows: 64, inner: 31, out: 1 },
    { rows: 9, inner: 1, out: 12 },
  ];
  return [
    ...fixed,
    ...Array.from({ length: 20 }, () => ({ rows: whole(1, 21), inner: whole(1, 700), out: whole(1, 130) })),
  ];
}

describe('products with float32 and bfloat16 matrices on a CPU', () => {
  before(() => useBackend('tensorflow'));

  for (const instructions of DENSE_INSTRUCTIONS)
    for (const dtype of ['float32', 'bfloat16', 'bfloat16, rounding x'] as const)
      it(`${instructions}, ${dtype}: as far from their reference as float32 may be`, async function () {
        if (!denseInstructions().includes(instructions)) this.skip();
        const rounded = dtype.includes('rounding');
        const next = lcg(instructions.length * 100 + dtype.length);
        const numbers = (size: number): Float32Array => Float32Array.from({ length: size }, () => next() * 2 - 1);
        const program = new Program();
        const all = cases(7).map((sizes) => {
          const { rows, inner, out } = sizes;
          const x = numbers(rows * inner);
          const w = numbers(out * inner);
          if (dtype !== 'float32')
            new Uint32Array(w.buffer).forEach((bits, i, words) => (words[i] = bits & 0xffff0000));
          return { sizes, x, w };
        });
        all.forEach(({ sizes: { rows, inner, out }, w }, i) => {
          const bytes = dtype === 'float32' ? w : Uint16Array.from(new Uint32Array(w.buffer), (bits) => bits >>> 16);
          const stored = dtype === 'float32' ? dtype : 'bfloat16';
          program.variable(`w${i}`, { shape: [out, inner], dtype: stored, init: () => bytes });
          program.define(`f${i}`, { x: { shape: [rows, inner], dtype: 'float32' } }, ({ x }, vars) => ({
            outputs: { y: denseProductBy(instructions, x as tf.Tensor2D, vars[`w${i}`]!, rounded) },
          }));
        });
        await program.compile();
        all.forEach(({ sizes, x, w }, i) => {
          const got = program.callSync(`f${i}`, { x })['y'] as Float32Array;
          const want = denseProductReference({ ...sizes, bf16: dtype !== 'float32', rounded }, { x, w });
          expect(got.length).to.equal(want.values.length);
          got.forEach((value, o) => {
            const off = Math.abs(value - want.values[o]!);
            expect(off, `${JSON.stringify(sizes)}: ${value} at ${o}, expected ${want.values[o]}`).to.be.at.most(
              want.bounds[o]!,
            );
          });
        });
        program.dispose();
      });

  it('leave infinities and NaN of a matrix where they are', async function () {
    if (denseInstructions().length === 0) this.skip();
    const program = new Program();
    const [out, inner] = [5, 37];
    const w = new Float32Array(out * inner).fill(1);
    w[inner + 36] = Infinity;
    w[3 * inner] = NaN;
    program.variable('w', { shape: [out, inner], dtype: 'float32', init: () => w });
    program.define('f', { x: { shape: [2, inner], dtype: 'float32' } }, ({ x }, vars) => ({
      outputs: { y: denseProduct(x as tf.Tensor2D, vars['w']!)! },
    }));
    await program.compile();
    const { y } = program.callSync('f', { x: new Float32Array(2 * inner).fill(1) });
    expect([...y!]).to.deep.equal([37, Infinity, 37, NaN, 37, 37, Infinity, 37, NaN, 37]);
    program.dispose();
  });

  it('have gradients for both operands', async function () {
    if (denseInstructions().length === 0) this.skip();
    const program = new Program();
    const [rows, out, inner] = [3, 4, 5];
    program.define(
      'f',
      { x: { shape: [rows, inner], dtype: 'float32' }, w: { shape: [out, inner], dtype: 'float32' } },
      ({ x, w }) => {
        const loss = (a: tf.Tensor, b: tf.Tensor): tf.Scalar =>
          tf.sum(tf.mul(denseProduct(a as tf.Tensor2D, b)!, tf.reshape(tf.range(0, rows * out), [rows, out])));
        const [dx, dw] = tf.grads(loss)([x!, w!]) as [tf.Tensor, tf.Tensor];
        return { outputs: { dx, dw } };
      },
    );
    await program.compile();
    const x = Float32Array.from({ length: rows * inner }, (_, i) => i % 7);
    const w = Float32Array.from({ length: out * inner }, (_, i) => i % 3);
    const got = program.callSync('f', { x, w });
    const sum = (count: number, term: (i: number) => number): number =>
      Array.from({ length: count }, (_, i) => term(i)).reduce((a, b) => a + b, 0);
    const dx = Array.from({ length: rows * inner }, (_, i) =>
      sum(out, (o) => (Math.floor(i / inner) * out + o) * w[o * inner + (i % inner)]!),
    );
    const dw = Array.from({ length: out * inner }, (_, i) =>
      sum(rows, (r) => (r * out + Math.floor(i / inner)) * x[r * inner + (i % inner)]!),
    );
    expect([...got['dx']!]).to.deep.equal(dx);
    expect([...got['dw']!]).to.deep.equal(dw);
    program.dispose();
  });
});
