/** Parts of quantised matrices: their weights are those of the whole. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { type ArrayPart, evenPart } from '../../src/base/array_parts.js';
import { ArgumentError } from '../../src/base/errors.js';
import { quantizeMatrix, QuantizedLinear } from '../../src/quant/index.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { thrown } from '../support/errors.js';
import { lcg } from '../support/random.js';

const [OUT, IN] = [6, 128];
const random = lcg(11);
const values = Float32Array.from({ length: OUT * IN }, () => random() - 0.5);

describe('a part of a quantised matrix', () => {
  before(() => useBackend('tensorflow'));

  for (const bits of [4, 8] as const)
    it(`has the weights of the whole one (int${bits})`, () => {
      tf.tidy(() => {
        const { matrix } = quantizeMatrix(values, [OUT, IN], { bits, groupSize: 32 });
        const whole = new QuantizedLinear(matrix, 'w');
        const dense = whole.dequantize();
        const rows: ArrayPart = { axis: 0, ranges: [[1, 2], [4, 6]], size: 3 }; // prettier-ignore
        expectClose(whole.part(rows).dequantize(), tf.gather(dense, [1, 4, 5]), 0);
        const columns: ArrayPart = { axis: 1, ranges: [[64, 128]], size: 64 };
        const right = whole.part(columns);
        expect(right.matrix.groupSize).to.equal(bits === 4 ? 32 : 64);
        expectClose(right.dequantize(), tf.slice(dense, [0, 64], [OUT, 64]), 0);
        // 6 rows over 4 devices: the last has none
        const filled = tf.concat([dense, tf.zeros([2, IN])], 0);
        for (let k = 0; k < 4; k++)
          expectClose(whole.part(evenPart(0, OUT, 4, k)).dequantize(), tf.slice(filled, [2 * k, 0], [2, IN]), 0);
      });
    });

  it('ends where a group ends', () => {
    const { matrix } = quantizeMatrix(values, [OUT, IN], { bits: 4, groupSize: 64 });
    const error = thrown(() => new QuantizedLinear(matrix, 'w').part({ axis: 1, ranges: [[0, 32]], size: 32 }));
    expect(error).to.be.instanceOf(ArgumentError);
    expect(error.message).to.match(/w: 32 of 128 input channels are no whole groups of 64.*group_size that divides 32/);
    expect((error as ArgumentError).data).to.include({ option: 'tp_plan', weight: 'w', group_size: 64, got: 32 });
  });
});
