/** int4 in tiles, for the kernels of CPUs: how codes lie, and what the form gives to others. The kernels are tested in kernels/host. */
import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { Program } from '../../src/jit/index.js';
import type { StoredMatrix } from '../../src/layers/weights.js';
import { dequantizeRows, heldOnce, quantizeMatrix, type QuantizedMatrix } from '../../src/quant/index.js';
import { tiledCodes, tileInstructions, tileStorage } from '../../src/quant/tile_form.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { roundedGroups } from '../support/oracle.js';
import { lcg } from '../support/random.js';

const random = (size: number, seed: number): Float32Array => {
  const next = lcg(seed);
  return Float32Array.from({ length: size }, () => next() * 2 - 1);
};

const sizes = { out: 70, inner: 128, group: 64 };

function matrix({ out, inner, group } = sizes, scaleDtype: 'float32' | 'bfloat16' = 'float32'): QuantizedMatrix {
  return quantizeMatrix(random(out * inner, out), [out, inner], { bits: 4, groupSize: group, scaleDtype }).matrix;
}

describe('int4 in tiles', () => {
  before(() => useBackend('tensorflow'));

  for (const instructions of ['vnni', 'avx2'] as const)
    for (const scales of ['float32', 'bfloat16'] as const)
      it(`a row's product: ${instructions}, ${scales} scales`, async function () {
        const m = matrix(sizes, scales);
        if (!tileInstructions(m).includes(instructions)) this.skip();
        const { variables, weight } = tileStorage(m, instructions);
        const program = new Program();
        for (const [suffix, spec] of Object.entries(variables)) program.variable(`w${suffix}`, spec);
        const x = random(sizes.inner, 1);
        program.define('step', { x: { shape: [1, sizes.inner], dtype: 'float32' } }, (t, vars) => {
          const own = Object.fromEntries(Object.keys(variables).map((suffix) => [suffix, vars[`w${suffix}`]!]));
          return { outputs: { y: (weight(own) as StoredMatrix).apply(t['x'] as tf.Tensor2D) } };
        });
        await program.compile();
        const y = program.callSync('step', { x })['y'] as Float32Array;
        program.dispose();
        const w = dequantizeRows(m, 0, sizes.out);
        const rounded = roundedGroups(x, sizes.group);
        const want = Float32Array.from({ length: sizes.out }, (_, o) =>
          rounded.reduce((sum, v, i) => sum + v * w[o * sizes.inner + i]!, 0),
        );
        expectClose(y, want, 3e-5);
      });

  it("says what a layer's kernel takes of it", () => {
    const vars = {
      '.codes': tf.zeros([3, 2, 8, 32, 4]),
      '.scale': tf.zeros([3, 2, 32]),
      '.zero': tf.zeros([3, 2, 32]),
    };
    const { host } = tileStorage(matrix(), 'avx2').weight(vars) as StoredMatrix;
    const tiles = { codes: vars['.codes'], scale: vars['.scale'], zero: vars['.zero'] };
    expect(host).to.deep.equal({ out: 70, inner: 128, groupSize: 64, bf16Levels: false, ...tiles });
    tf.dispose(vars);
  });

  it('tiles hold every code once: four channels of an output side by side, the group’s halves in a byte', () => {
    const m = matrix({ out: 35, inner: 64, group: 32 });
    const packed = tiledCodes(m);
    const [inner, group] = [64, 32];
    const code = (row: number, channel: number): number =>
      ((m.codes[(row * inner + channel) >> 1]! >> (4 * (channel & 1))) & 15) ^ 8;
    expect(packed.length).to.equal((64 * inner) / 2);
    for (let row = 0; row < 64; row++)
      for (let c = 0; c < inner; c++) {
        const k = c % (group / 2);
        const word = Math.floor(row / 32) * (inner / 8) + Math.floor(c / group) * (group / 8) + (k >> 2);
        const byte = packed[(word * 32 + (row % 32)) * 4 + (k & 3)]!;
        const high = c % group >= group / 2;
        expect(high ? byte >> 4 : byte & 15).to.equal(row < 35 ? code(row, c) : 0);
      }
  });

  it('codes that a program took are held in tiles alone, and are the same in rows', () => {
    const m = matrix({ out: 70, inner: 128, group: 64 });
    const once = heldOnce(m);
    expect(once.codes).to.equal(m.codes);
    const tiles = tiledCodes(once);
    expect(tiles).to.deep.equal(tiledCodes(m));
    expect(tiledCodes(once)).to.equal(tiles);
    expect(once.codes).to.not.equal(m.codes);
    expect(once.codes).to.deep.equal(m.codes);
  });
});
