/** The mixer as GPUs run it in bfloat16, its kernels in plain loops: near float32, gradients too. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { withKernelRunner } from '../../src/jit/custom_call/triton.js';
import { Mamba2Mixer, mixerForward, type MixerOptions, type MixerState } from '../../src/layers/mixer.js';
import { useBackend } from '../support/backends.js';
import { interpretKernels } from '../../src/kernels/interpret/runner.js';
import { lcg } from '../support/random.js';

/**
 * How far results may be from float32, relative to their root mean square. A rounding to bfloat16 moves a value by 0.0017 of it (rms, see
 * bfloat16Bound); a value of the forward pass has gone through some six of them (projection, convolution, the operands of two products, state,
 * gate), which add as squares to 0.004, and a gradient through twice as many. Sums over positions cancel: they are allowed the rest.
 */
const FORWARD = 0.01;
const GRADIENT = 0.02;

for (const seed of [1, 2, 3, 4, 5])
  describe(`mixer in bfloat16, numbers ${seed}`, () => {
    const mixer = new Mamba2Mixer({
      hiddenSize: 16,
      numHeads: 8,
      headDim: 4,
      nGroups: 2,
      stateSize: 8,
      chunkSize: 16,
      useBias: true,
      epsilon: 1, // the norm divides by no less: what was rounded does not grow there, whatever the numbers
    });
    const { spec } = mixer;
    const random = lcg(seed);
    const numbers = (shape: number[], scale = 1): tf.Tensor =>
      tf.tensor(
        Float32Array.from({ length: tf.util.sizeFromShape(shape) }, () => scale * (2 * random() - 1)),
        shape,
      );
    const names = mixer.specs().map(({ name }) => name);
    const [b, t] = [2, 40];
    let weights: Record<string, tf.Tensor>;
    let u: tf.Tensor3D;
    let dy: tf.Tensor;
    before(async () => {
      await useBackend('tensorflow');
      const scale = (name: string): number => (name.endsWith('proj.weight') ? 0.5 : 1);
      weights = Object.fromEntries(mixer.specs().map(({ name, shape }) => [name, numbers(shape, scale(name))]));
      u = numbers([b, t, 16]) as tf.Tensor3D;
      dy = numbers([b, t, 16]);
    });

    /** Root of the mean square of the difference, relative to all. */
    function apart(got: tf.Tensor, want: tf.Tensor): number {
      expect(got.shape).to.deep.equal(want.shape);
      return tf.tidy(() => {
        const norm = (x: tf.Tensor): number => tf.norm(x).dataSync()[0]!;
        return norm(tf.sub(got, want)) / norm(want);
      });
    }
    const forward = (options: MixerOptions, x = u, w = weights): { y: tf.Tensor3D; state: MixerState } =>
      mixerForward(spec, w, x, options);
    const inBf16 = (options: MixerOptions, used: string[] = []): { y: tf.Tensor3D; state: MixerState } =>
      withKernelRunner(interpretKernels(used), () => forward({ ...options, bf16Scan: true }));

    it('reads a prompt after a state, of rows that end', () => {
      const state = { conv: numbers([b, 3, spec.convSize]) as tf.Tensor3D, ssm: numbers([b, 8, 4, 8]) as tf.Tensor4D };
      const ends = [40, 23];
      const mask = tf.tensor2d(ends.map((end) => Array.from({ length: t }, (_, i) => Number(i < end))));
      const used: string[] = [];
      const [want, got] = [forward({ state, mask }), inBf16({ state, mask }, used)];
      expect(used).to.include('causal_convolution');
      const real = tf.reshape(mask, [b, t, 1]);
      expect(apart(tf.mul(got.y, real), tf.mul(want.y, real))).to.be.within(1e-5, FORWARD);
      expect(apart(got.state.ssm, want.state.ssm)).to.be.within(1e-5, FORWARD);
      expect(apart(got.state.conv, want.state.conv)).to.be.below(0.004); // rounded inputs, each by half of 2^-8 at most
    });

    for (const packed of [false, true])
      it(`has the gradients of training${packed ? ', documents packed' : ''}`, () => {
        const segments = packed
          ? tf.tensor2d([Array.from({ length: t }, (_, i) => Number(i > 13)), new Array<number>(t).fill(0)])
          : undefined;
        const gradients = (bf16Scan: boolean): tf.Tensor[] =>
          tf.grads((x, ...list) => {
            const own = Object.fromEntries(names.map((name, i) => [name, list[i]!]));
            return tf.sum(tf.mul(forward({ segments, bf16Scan }, x as tf.Tensor3D, own).y, dy));
          })([u, ...names.map((name) => weights[name]!)]);
        const used: string[] = [];
        const [want, withoutKernels] = [gradients(false), gradients(true)];
        const got = withKernelRunner(interpretKernels(used), () => gradients(true));
        expect(used.includes('causal_convolution_dw')).to.equal(!packed);
        for (const [i, name] of ['u', ...names].entries()) {
          if (name === 'out_proj.bias')
            expect(apart(got[i]!, want[i]!), name).to.equal(0); // a sum of dy
          else expect(apart(got[i]!, want[i]!), name).to.be.within(1e-5, GRADIENT);
          // what is rounded is the same, but for numbers in the middle of two, which another order of sums may send the other way
          expect(apart(got[i]!, withoutKernels[i]!), `${name}, without kernels`).to.be.below(0.004);
        }
      });

    it('is float32 for a single token', () => {
      const state = {
        conv: tf.zeros([b, 3, spec.convSize]) as tf.Tensor3D,
        ssm: tf.zeros([b, 8, 4, 8]) as tf.Tensor4D,
      };
      const token = tf.slice(u, [0, 0, 0], [b, 1, 16]);
      const [want, got] = [false, true].map((bf16Scan) => forward({ state, bf16Scan }, token).y) as [
        tf.Tensor,
        tf.Tensor,
      ];
      expect(apart(got, want)).to.equal(0);
    });
  });
