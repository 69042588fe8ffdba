import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { blockForward, blockWeightSpecs } from '../../../src/layers/block.js';
import { type StepPath, stepPaths, type StepRequest, takePath } from '../../../src/layers/decode/choose.js';
import type { MixerState } from '../../../src/layers/mixer.js';
import { type Mamba2MixerArgs, mixerSpec } from '../../../src/layers/mixer_spec.js';
import type { StoredMatrix, Weight } from '../../../src/layers/weights.js';
import { expectClose } from '../../support/compare.js';
import { randomArr, toTensor } from '../../support/oracle.js';
import { lcg } from '../../support/random.js';

const SIZES: Mamba2MixerArgs = { hiddenSize: 32, numHeads: 4, headDim: 8, stateSize: 8, nGroups: 2 };

describe('the way of a decoding step', () => {
  before(() => tf.setBackend('cpu'));

  const conv = (): tf.Tensor3D => tf.zeros([1, 3, 1]);
  const given = (change: Partial<StepRequest> & { context?: boolean } = {}): StepRequest => {
    const state = { conv: conv(), ssm: tf.zeros([1, 1, 1, 1]) } as MixerState;
    if (change.context !== false) state.context = { layers: tf.zeros([1, 1, 3, 1]), layer: 0 };
    return { rows: 1, tokens: 1, state, ...change };
  };
  /** Projections stored in forms that have these kernels; undefined for tensors. */
  const weights = (kernels: Partial<StoredMatrix> | null): Record<string, Weight> => {
    const matrix = kernels ? ({ shape: [1, 1], ...kernels } as StoredMatrix) : tf.zeros([1, 1]);
    return { 'in_proj.weight': matrix, 'out_proj.weight': matrix };
  };
  const fused = { fused: () => null };
  const both = { ...fused, batch: () => null };
  const onHost = (): Partial<StoredMatrix> => ({ ...both, host: tf.zeros([1, 1]) });

  const cases: [
    string,
    Partial<StoredMatrix> | 'host' | null,
    Partial<StepRequest> & { context?: boolean },
    StepPath[],
  ][] = [
    ['tensors', null, {}, ['plain']],
    ['tensors, work merged', null, { mergeStep: true }, ['kernels', 'merged', 'plain']],
    ['without the contexts of all layers', both, { mergeStep: true, context: false }, ['merged', 'plain']],
    ['one row', both, {}, ['one_row', 'plain']],
    ['one row, work merged', both, { mergeStep: true }, ['one_row', 'kernels', 'merged', 'plain']],
    ['one row, nothing merged', both, { mergeStep: false }, ['plain']],
    ['a few rows', both, { rows: 3 }, ['plain']],
    ['a few rows, work merged', both, { rows: 3, mergeStep: true }, ['few_rows', 'kernels', 'merged', 'plain']],
    ['a few rows of a form for one', fused, { rows: 3, mergeStep: true }, ['kernels', 'merged', 'plain']],
    ['one row, on a CPU', 'host', {}, ['layer', 'one_row', 'plain']],
    ['a few rows, on a CPU', 'host', { rows: 3 }, ['layer', 'plain']],
    ['a few rows, on a CPU, nothing merged', 'host', { rows: 3, mergeStep: false }, ['plain']],
    ['on a CPU without the contexts of all layers', 'host', { context: false }, ['plain']],
    ['several tokens', both, { tokens: 2, mergeStep: true }, ['scan']],
    ['a token without a state', both, { state: undefined, mergeStep: true }, ['scan']],
  ];
  for (const [name, kernels, request, want] of cases)
    it(name, () =>
      tf.tidy(() => {
        const own = weights(kernels === 'host' ? onHost() : kernels);
        expect(stepPaths(mixerSpec(SIZES), own, given(request))).to.deep.equal(want);
      }),
    );

  it('biases of projections, and widths that are no multiple of 32, have no such kernels', () =>
    tf.tidy(() => {
      const ask = (change: Partial<Mamba2MixerArgs>, rows: number): readonly StepPath[] =>
        stepPaths(mixerSpec({ ...SIZES, ...change }), weights(both), given({ rows, mergeStep: true }));
      const others = ['kernels', 'merged', 'plain'];
      for (const rows of [1, 3]) expect(ask({ useBias: true }, rows)).to.deep.equal(others);
      expect(ask({ hiddenSize: 40 }, 3)).to.deep.equal(others);
      expect(ask({ hiddenSize: 40 }, 1)).to.deep.equal(['one_row', ...others]);
    }));

  it('the first path that gives something is taken', () => {
    const asked: string[] = [];
    const way = (name: string, out: string | null) => (): string | null => (asked.push(name), out);
    const paths: StepPath[] = ['few_rows', 'one_row', 'kernels', 'plain'];
    const ways = { one_row: way('one_row', null), kernels: way('kernels', 'done'), plain: way('plain', 'late') };
    expect(takePath(paths, ways)).to.equal('done');
    expect(asked).to.deep.equal(['one_row', 'kernels']);
    expect(takePath(['few_rows'], ways)).to.equal(null);
  });

  for (const [name, change] of [
    ['groups', {}],
    ['one norm, two taps', { normGroups: 'full', convKernel: 2, useConvBias: false }],
    ['one tap, bounds of step sizes, biases', { convKernel: 1, timeStepLimit: [0.3, 0.9], useBias: true }],
  ] as [string, Partial<Mamba2MixerArgs>][])
    it(`merged work is the plain step: ${name}`, () =>
      tf.tidy(() => {
        const spec = mixerSpec({ ...SIZES, ...change });
        const random = lcg(11);
        const own = Object.fromEntries(
          blockWeightSpecs(spec).map(({ name: weight, shape }) => [
            weight,
            toTensor(randomArr(random, shape, -0.5, 0.5)),
          ]),
        );
        const numbers = <T extends tf.Tensor>(shape: number[]): T => toTensor(randomArr(random, shape)) as T;
        const x = numbers<tf.Tensor3D>([3, 1, spec.hiddenSize]);
        const state = {
          conv: numbers<tf.Tensor3D>([3, spec.convKernel - 1, spec.convSize]),
          ssm: numbers<tf.Tensor4D>([3, spec.numHeads, spec.headDim, spec.stateSize]),
        };
        const rows = tf.tensor2d([[1], [0], [1]]);
        const [want, got] = [false, true].map((mergeStep) =>
          blockForward(spec, own, x, { state, mask: rows, mergeStep }),
        );
        const real = (y: tf.Tensor): tf.Tensor => tf.mul(y, tf.reshape(rows, [3, 1, 1])); // of a row that is off, y means nothing
        expectClose(real(got!.y), real(want!.y), 1e-6);
        expectClose(got!.state.ssm, want!.state.ssm, 1e-6);
        expectClose(got!.state.conv, want!.state.conv, 1e-6);
      }));
});
