import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { materialiseOnGpu } from '../../../src/jit/fusion/barrier.js';
import { oneRowRecurrence } from '../../../src/layers/decode/one_row_recurrence.js';
import { mixerSpec } from '../../../src/layers/mixer_spec.js';
import { largestDifference } from '../../support/compare.js';

const numbers = (size: number, seed: number): Float32Array => {
  let state = seed;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
};

describe('a step of one row on a GPU', () => {
  before(() => tf.setBackend('cpu'));

  for (const groups of [1, 2])
    it(`is the recurrence with skip and gate, ${groups} group${groups > 1 ? 's' : ''}`, () => {
      const spec = mixerSpec({ hiddenSize: 16, numHeads: 4, headDim: 8, stateSize: 16, nGroups: groups });
      const { numHeads: h, headDim: p, stateSize: n, innerSize, convSize, projSize } = spec;
      const all = numbers(projSize + convSize + 2 * h, 1);
      const state = numbers(h * p * n, 2);
      const D = numbers(h, 3);
      // silu(z) | xBC | dt as projected, then xBC | dt | decays
      const at = (begin: number, i: number): number => all[begin + i]!;
      const [wantY, wantState] = [new Float32Array(h * p), new Float32Array(h * p * n)];
      for (let head = 0; head < h; head++)
        for (let i = 0; i < p; i++) {
          const channel = head * p + i;
          const group = Math.floor(head / (h / groups));
          const x = at(projSize, channel);
          let y = D[head]! * x;
          for (let j = 0; j < n; j++) {
            const B = at(projSize + innerSize, group * n + j);
            const C = at(projSize + innerSize + groups * n, group * n + j);
            const place = channel * n + j;
            const S = at(projSize + convSize + h, head) * state[place]! + at(projSize + convSize, head) * x * B;
            wantState[place] = S;
            y += S * C;
          }
          wantY[channel] = y * at(0, channel);
        }
      const result = tf.tidy(() => {
        const out = oneRowRecurrence(
          spec,
          { D: tf.tensor1d(D) },
          tf.tensor2d(all, [1, all.length]),
          tf.tensor4d(state, [1, h, p, n]),
        );
        expect(out.gated.shape).to.deep.equal([1, innerSize]);
        return [out.gated.dataSync(), out.state.dataSync()] as const;
      });
      expect(largestDifference(result[0], wantY).difference).to.be.below(2e-6);
      expect(largestDifference(result[1], wantState).difference).to.be.below(1e-6);
    });

  it('leaves the state of a masked row as it is', () => {
    const args = { hiddenSize: 8, numHeads: 4, headDim: 2, stateSize: 3, nGroups: 2 };
    const spec = mixerSpec(args);
    const random = (length: number, seed: number): number[] =>
      Array.from({ length }, (_, i) => Math.sin(seed + 3.7 * i));
    const all = random(spec.projSize + spec.convSize + 2 * spec.numHeads, 1);
    const before = random(4 * 2 * 3, 2);
    const stateFor = (mask: number[][] | null): Float32Array =>
      tf.tidy(() => {
        const weights = { D: tf.tensor1d(random(4, 3)) };
        const ssm = tf.tensor4d(before, [1, 4, 2, 3]);
        const given = mask ? tf.tensor2d(mask) : undefined;
        return oneRowRecurrence(
          spec,
          weights,
          tf.tensor2d(all, [1, all.length]),
          ssm,
          given,
        ).state.dataSync() as Float32Array;
      });
    expect([...stateFor([[0]])]).to.deep.equal([...Float32Array.from(before)]);
    expect([...stateFor([[1]])]).to.deep.equal([...stateFor(null)]);
    expect([...stateFor(null)]).to.not.deep.equal([...Float32Array.from(before)]);
  });

  it('leaves the stream as it is where nothing is compiled for a GPU', () => {
    tf.tidy(() => {
      const x = tf.ones([2]);
      expect(materialiseOnGpu(x)).to.equal(x);
    });
  });
});
