import { expect } from 'chai';
import { epilogueReference } from '../../../src/kernels/epilogue/reference.js';
import { separateEpilogueFits, type SeparateEpilogueSpec } from '../../../src/kernels/epilogue/spec.js';
import { separateEpilogueKernel } from '../../../src/kernels/epilogue/triton.js';
import { type Memory, runTtir } from '../../../src/kernels/interpret/ttir.js';

describe('a step of several rows on a GPU', () => {
  const numbers = (size: number, seed: number, scale = 1): Float32Array =>
    Float32Array.from({ length: size }, (_, i) => scale * Math.sin(1 + i * 2.3 + seed * 11));
  const small: SeparateEpilogueSpec = {
    rows: 2,
    wide: 40 + 56 + 5 + 3,
    layers: 3,
    first: 40,
    channels: 56,
    heads: 5,
    taps: 4,
    bias: true,
    masked: true,
    limit: [0, Infinity],
  };
  const large = { rows: 1, wide: 300 + 340 + 20, first: 300, channels: 340, heads: 20 };
  const cases: [string, Partial<SeparateEpilogueSpec>][] = [
    ['two rows, one switched off', {}],
    ['without bias and mask, with limits', { bias: false, masked: false, limit: [0.2, 0.9] }],
    ['more channels than a program takes', large],
  ];
  for (const [name, change] of cases) {
    it(`is the same as in plain loops: ${name}`, () => {
      const spec = { ...small, ...change };
      const { rows, wide, layers, channels, heads, taps } = spec;
      const layer = 1;
      const place = layer * (taps - 1) * channels;
      const raw = numbers(rows * wide, 1);
      const context = numbers(rows * layers * (taps - 1) * channels, 2);
      const weights = numbers(channels * taps, 3);
      const [bias, dtBias, ALog] = [numbers(channels, 4), numbers(heads, 5, 3), numbers(heads, 6, 2)];
      const mask = Float32Array.from({ length: rows }, (_, i) => 1 - (i % 2));
      const size = channels + 2 * heads;
      const result = new Float32Array(rows * size).fill(NaN);
      const memory: Memory = [
        raw,
        Int32Array.of(place),
        context,
        weights,
        ...(spec.bias ? [bias] : []),
        dtBias,
        ALog,
        ...(spec.masked ? [mask] : []),
        result,
      ];
      runTtir(separateEpilogueKernel(spec), memory);
      for (let row = 0; row < rows; row++) {
        const want = epilogueReference(spec, {
          ...{ y: raw.subarray(row * wide, (row + 1) * wide), taps: weights, bias, dtBias, ALog },
          ...{ context, place: row * layers * (taps - 1) * channels + place, off: spec.masked && mask[row] === 0 },
        });
        [...want.xBC, ...want.dt, ...want.decay].forEach((x, i) =>
          expect(result[row * size + i], `row ${row}, ${i}`).to.be.closeTo(x, 2e-6),
        );
      }
    });
  }

  it('says where there is no kernel', () => {
    expect(separateEpilogueFits(small)).to.equal(true);
    expect(separateEpilogueFits({ ...small, layers: 2 ** 24 })).to.equal(false);
  });
});
