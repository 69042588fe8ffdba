/** The arithmetic of quantising against torchao's values and against plain loops. */
import { expect } from 'chai';
import * as path from 'node:path';
import { ArgumentError } from '../../src/base/errors.js';
import { toBfloat16 } from '../../src/base/stored_dtypes.js';
import { dequantizeRows, int4Codes, packedBytes, quantizeMatrix, type QuantizedMatrix } from '../../src/quant/index.js';
import { expectClose, largestDifference } from '../support/compare.js';
import { loadGolden, readTensors, type GoldenTensor } from '../support/goldens.js';
import { thrown } from '../support/errors.js';
import { lcg } from '../support/random.js';

/** [out, groups] to [groups, out] */
function transposed({ shape, data }: GoldenTensor): Float32Array {
  const [rows, columns] = shape as [number, number];
  return Float32Array.from({ length: rows * columns }, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
}

function gaussian(size: number, seed: number): Float32Array {
  const random = lcg(seed);
  return Float32Array.from({ length: size }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    return radius * Math.cos(2 * Math.PI * random());
  });
}

const all = (m: QuantizedMatrix): Float32Array => dequantizeRows(m, 0, m.shape[0]);

for (const name of ['int4', 'int4-skip']) {
  describe(`golden ${name}: codes, scales, zeros and weights`, () => {
    const golden = loadGolden(name);
    const names = golden.inputs.quantised as string[];
    const groupSize = golden.inputs.group_size as number;

    it('from float32 weights', () => {
      const weights = readTensors(path.join(golden.dir, 'model.safetensors'));
      const want = readTensors(path.join(golden.dir, 'quantised-fp32.safetensors'));
      for (const weight of names) {
        const { shape, data } = weights.get(weight)!;
        const { matrix } = quantizeMatrix(data as Float32Array, shape as [number, number], { bits: 4, groupSize });
        expect(int4Codes(matrix), `${weight}.q`).to.deep.equal(Uint8Array.from(want.get(`${weight}.q`)!.data));
        expectClose(matrix.scale, transposed(want.get(`${weight}.scale`)!), 1e-6, `${weight}.scale`);
        expectClose(matrix.zero!, transposed(want.get(`${weight}.zero`)!), 1e-6, `${weight}.zero`);
        expectClose(all(matrix), golden.tensor(`fp32.dequantised.${weight}`).data, 1e-6, weight);
      }
    });

    it('from bfloat16 weights, in the plain packing', () => {
      const weights = readTensors(path.join(golden.dir, 'model.safetensors'));
      const want = readTensors(path.join(golden.dir, 'quantised-bf16.safetensors'));
      for (const weight of names) {
        const { shape, data } = weights.get(weight)!;
        const rounded = (data as Float32Array).map(toBfloat16);
        const options = { bits: 4, groupSize, scaleDtype: 'bfloat16' } as const;
        const { matrix } = quantizeMatrix(rounded, shape as [number, number], options);
        const packed = (part: string): GoldenTensor => want.get(weight.replace(/weight$/, `_weight_${part}`))!;
        expectClose(matrix.scale, packed('scale').data, 1e-6, `${weight} scale`);
        expectClose(matrix.zero!, packed('zero_point').data, 1e-6, `${weight} zero`);
        const qdata = packed('qdata').data;
        const codes = packedBytes(matrix)[0]!;
        const differing = codes.reduce((sum, byte, i) => sum + (byte === (qdata[i]! & 255) ? 0 : 1), 0);
        // only exact ties may round the other way
        expect(differing, 'bytes that differ').to.be.at.most(codes.length * 0.002);
        expect(largestDifference(int4Codes(matrix), want.get(`${weight}.q`)!.data).difference).to.be.at.most(1);
      }
    });
  });
}

describe('quantizeMatrix', () => {
  it('gives back constant, zero, tiny and outlier groups', () => {
    const golden = loadGolden('int4');
    const stored = readTensors(path.join(golden.dir, 'quantised-fp32.safetensors'));
    const { shape, data } = stored.get('degenerate.weight')!;
    const want = (stored.get('degenerate.dequantised') ?? golden.tensor('degenerate.dequantised')).data;
    const groupSize = golden.inputs.group_size as number;
    const { matrix } = quantizeMatrix(data as Float32Array, shape as [number, number], { bits: 4, groupSize });
    all(matrix).forEach((value, i) => {
      const begin = i - (i % groupSize);
      const largest = Math.max(...Array.from(data.subarray(begin, begin + groupSize), Math.abs));
      expect(value, `weight ${i}`).to.be.closeTo(want[i]!, 1e-6 + 2e-6 * largest);
    });
  });

  for (const [group, published] of [
    [32, 0.078],
    [64, 0.09],
    [128, 0.1],
    [256, 0.109],
  ] as const) {
    it(`has the known relative error on Gaussian weights, groups of ${group}`, () => {
      const values = gaussian(64 * 1024, group);
      const { matrix, error } = quantizeMatrix(values, [64, 1024], { bits: 4, groupSize: group });
      let [squared, energy] = [0, 0];
      all(matrix).forEach((w, i) => {
        squared += (w - values[i]!) ** 2;
        energy += values[i]! ** 2;
      });
      expect(error.relative).to.be.closeTo(Math.sqrt(squared / energy), 1e-6);
      expect(error.relative).to.be.closeTo(published, 0.002);
      // no weight is further from its level than half a step
      const scales = matrix.scale;
      all(matrix).forEach((w, i) => {
        const [row, g] = [Math.floor(i / 1024), Math.floor((i % 1024) / group)];
        expect(Math.abs(w - values[i]!)).to.be.at.most(scales[g * 64 + row]! * 0.5001);
      });
    });
  }

  it("search has less error than torchao's range, in every group", () => {
    const values = gaussian(16 * 512, 9);
    const options = { bits: 4, groupSize: 128 } as const;
    for (let row = 0; row < 16; row++) {
      const part = values.subarray(row * 512, (row + 1) * 512);
      const plain = quantizeMatrix(part, [1, 512], options).error.relative;
      const searched = quantizeMatrix(part, [1, 512], { ...options, rounding: 'search' }).error.relative;
      expect(searched).to.be.below(plain);
    }
  });

  it('int8 rounds to a 127.5th of the largest weight of a row', () => {
    const values = gaussian(8 * 96, 4);
    const { matrix, error } = quantizeMatrix(values, [8, 96], { bits: 8 });
    for (let row = 0; row < 8; row++) {
      const largest = Math.max(...Array.from(values.subarray(row * 96, (row + 1) * 96), Math.abs));
      expect(matrix.scale[row]).to.be.closeTo(largest / 127.5, 1e-7);
      const got = dequantizeRows(matrix, row, row + 1);
      got.forEach((w, i) => expect(Math.abs(w - values[row * 96 + i]!)).to.be.at.most(matrix.scale[row]! * 0.5001));
    }
    expect(error.relative).to.be.below(0.01);
  });

  it('a quantised matrix quantises to itself', () => {
    const { matrix } = quantizeMatrix(gaussian(8 * 128, 2), [8, 128], { bits: 4, groupSize: 64 });
    const again = quantizeMatrix(all(matrix), [8, 128], { bits: 4, groupSize: 64 });
    expect(again.matrix.codes).to.deep.equal(matrix.codes);
    expect(again.error.relative).to.be.below(1e-6);
  });

  it('refuses weights that are not finite, and groups that do not divide the rows', () => {
    const values = new Float32Array(64);
    values[40] = NaN;
    const options = { bits: 4, groupSize: 32, name: 'a.weight' } as const;
    expect(thrown(() => quantizeMatrix(values, [2, 32], options)).message).to.match(/a\.weight: row 1 holds NaN/);
    values[40] = -Infinity;
    expect(thrown(() => quantizeMatrix(values, [2, 32], { bits: 8 }))).to.be.instanceOf(ArgumentError);
    expect(thrown(() => quantizeMatrix(values, [1, 48], options)).message).to.match(/48 input channels .* 32/);
  });
});
