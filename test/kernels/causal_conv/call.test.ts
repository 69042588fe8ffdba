import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { convolutionReference } from '../../../src/kernels/causal_conv/reference.js';
import { convolutionFits, type ConvolutionSpec } from '../../../src/kernels/causal_conv/spec.js';
import { convolutionOnGpu, type ConvolutionInputs } from '../../../src/kernels/index.js';
import { withKernelRunner } from '../../../src/jit/custom_call/triton.js';
import { useBackend } from '../../support/backends.js';
import { largestDifference } from '../../support/compare.js';
import { interpretKernels } from '../../../src/kernels/interpret/runner.js';

/** Multiples of 1/8 around 0, which bfloat16 holds: what is added up of their products is then exact in float32. */
const numbers = (shape: number[], seed: number): tf.Tensor =>
  tf.tensor(
    Float32Array.from({ length: tf.util.sizeFromShape(shape) }, (_, i) => (((i + 3) * (seed + 4) * 37) % 33) / 8 - 2),
    shape,
  );

/** Within the rounding of bfloat16, and exactly where float32 was kept. */
function expectRounded(got: ArrayLike<number>, want: ArrayLike<number>, what: string): void {
  expect(got.length, what).to.equal(want.length);
  for (let i = 0; i < want.length; i++)
    expect(got[i], `${what} at ${i}`).to.be.closeTo(want[i]!, Math.abs(want[i]!) * 2 ** -8);
}

describe('the convolution of a prompt by kernels of a GPU', () => {
  before(() => useBackend('tensorflow'));
  const base = { b: 2, t: 40, channels: 64, taps: 4, width: 96, first: 24, bias: true, context: false };
  const cases: [string, Partial<ConvolutionSpec>][] = [
    ['some tiles and a rest', {}],
    ['whole tiles', { t: 32 }],
    ['more tokens than a program of the weights takes', { t: 272, b: 1, channels: 32 }],
    ['no bias, two taps', { bias: false, taps: 2 }],
    ['rows of nothing else', { width: 64, first: 0 }],
  ];
  const inputs = (spec: ConvolutionSpec): ConvolutionInputs & { dy: tf.Tensor } => {
    const { b, t, channels, taps, width, first } = spec;
    const rows = numbers([b, t, width], 1) as tf.Tensor3D;
    return {
      rows,
      first,
      x: tf.slice(rows, [0, 0, first], [b, t, channels]),
      weight: numbers([channels, 1, taps], 2),
      bias: spec.bias ? numbers([channels], 3) : undefined,
      context: spec.context ? (numbers([b, taps - 1, channels], 5) as tf.Tensor3D) : undefined,
      dy: numbers([b, t, channels], 7),
    };
  };

  for (const [name, change] of cases)
    it(`is that of plain loops, gradients too: ${name}`, () => {
      const spec = { ...base, ...change };
      const { x, weight, bias, dy, ...rest } = inputs(spec);
      const want = convolutionReference(spec, {
        ...{ x: x.dataSync(), weight: weight.dataSync(), bias: bias?.dataSync() ?? null },
        ...{ context: null, dy: dy.dataSync() },
      });
      const names: string[] = [];
      withKernelRunner(interpretKernels(names), () => {
        const run = (v: tf.Tensor, w: tf.Tensor, offset?: tf.Tensor): tf.Tensor =>
          convolutionOnGpu({ x: v as tf.Tensor3D, weight: w, bias: offset, ...rest })!;
        expectRounded(run(x, weight, bias).dataSync(), want.y, 'y');
        const [dx, dWeight, dBias] = tf.grads(run)([x, weight, ...(bias ? [bias] : [])], dy);
        expectRounded(dx!.dataSync(), want.dx, 'dx');
        expect(dWeight!.shape).to.deep.equal(weight.shape);
        expect(largestDifference(dWeight!.dataSync(), want.dWeight).difference).to.be.below(1e-4);
        if (bias) expect(largestDifference(dBias!.dataSync(), want.dBias).difference).to.be.below(1e-4);
      });
      expect(new Set(names)).to.deep.equal(
        new Set(['causal_convolution', 'causal_convolution_dx', 'causal_convolution_dw']),
      );
    });

  for (const [name, change] of [
    ['with a bias', {}],
    ['without', { bias: false }],
  ] as const)
    it(`begins with the inputs before, ${name}`, () => {
      const spec = { ...base, context: true, ...change };
      const { dy, ...given } = inputs(spec);
      const [x, weight, context] = [given.x.dataSync(), given.weight.dataSync(), given.context!.dataSync()];
      const bias = given.bias?.dataSync() ?? null;
      const want = convolutionReference(spec, { x, weight, bias, context, dy: dy.dataSync() });
      withKernelRunner(interpretKernels(), () => expectRounded(convolutionOnGpu(given)!.dataSync(), want.y, 'y'));
    });

  it('says where there is no kernel', () => {
    expect(convolutionFits(base)).to.equal(true);
    expect(convolutionFits({ ...base, channels: 48 })).to.equal(false);
    expect(convolutionFits({ ...base, width: 99 })).to.equal(false);
    expect(convolutionFits({ ...base, taps: 1 })).to.equal(false);
    expect(convolutionFits({ ...base, t: 8 })).to.equal(false);
    expect(convolutionOnGpu(inputs(base))).to.equal(null); // no GPU
  });
});
