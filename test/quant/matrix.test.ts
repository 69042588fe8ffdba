/** The quantised matrix as a weight: eager on every backend, and compiled in both packed forms, against plain loops. */
import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../src/base/errors.js';
import { TracingError } from '../../src/jit/errors.js';
import { Program } from '../../src/jit/index.js';
import type { StoredMatrix } from '../../src/layers/weights.js';
import {
  dequantizeRows,
  QuantizedLinear,
  quantizedStorage,
  quantizeMatrix,
  type QuantizedMatrix,
  type StorageOptions,
} from '../../src/quant/index.js';
import { onBackends, useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { thrown } from '../support/errors.js';
import { roundedGroups } from '../support/oracle.js';
import { lcg } from '../support/random.js';
import { tileInstructions } from '../../src/quant/tile_form.js';

function random(size: number, seed: number): Float32Array {
  const next = lcg(seed);
  return Float32Array.from({ length: size }, () => next() * 2 - 1);
}

function matrix(out: number, inner: number, groupSize: number, bits: 4 | 8 = 4): QuantizedMatrix {
  return quantizeMatrix(random(out * inner, out + inner), [out, inner], { bits, groupSize }).matrix;
}

/** x·Wᵀ in plain loops over the dequantised weights */
function product(x: Float32Array, rows: number, m: QuantizedMatrix): Float64Array {
  const [out, inner] = m.shape;
  const w = dequantizeRows(m, 0, out);
  return Float64Array.from({ length: rows * out }, (_, i) => {
    const [r, o] = [Math.floor(i / out), i % out];
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += x[r * inner + k]! * w[o * inner + k]!;
    return sum;
  });
}

onBackends(['tensorflow', 'wasm', 'cpu'], 'QuantizedLinear', () => {
  for (const bits of [4, 8] as const) {
    it(`int${bits}: product, rows and gradient are those of the dequantised weights`, () => {
      const m = matrix(48, 96, 32, bits);
      const linear = new QuantizedLinear(m);
      const x = random(5 * 96, 1);
      const before = tf.memory();
      tf.tidy(() => {
        const input = tf.tensor2d(x, [5, 96]);
        expectClose(linear.apply(input), product(x, 5, m), 1e-5, 'product');
        const w = dequantizeRows(m, 0, 48);
        const ids = [47, 0, 13, 13];
        const rows = linear.rows(tf.tensor1d(ids, 'int32')).dataSync();
        ids.forEach((id, i) => expectClose(rows.slice(i * 96, (i + 1) * 96), w.slice(id * 96, (id + 1) * 96), 0));
        const dense = linear.dequantize();
        const loss = (weight: (x: tf.Tensor2D) => tf.Tensor) =>
          tf.grad((t) => tf.sum(tf.square(weight(t as tf.Tensor2D))));
        const got = loss((t) => linear.apply(t))(input);
        expectClose(got, loss((t) => tf.matMul(t, dense, false, true))(input), 1e-4, 'gradient');
      });
      linear.dispose();
      const after = tf.memory();
      expect([after.numTensors, after.numBytes]).to.deep.equal([before.numTensors, before.numBytes]);
    });
  }

  it('refuses inputs and rows that do not fit', () => {
    const linear = new QuantizedLinear(matrix(8, 32, 32), 'lm_head.weight');
    tf.tidy(() => {
      expect(thrown(() => linear.apply(tf.ones([2, 31])))).to.be.instanceOf(ArgumentError);
      expect(thrown(() => linear.rows(tf.tensor1d([8], 'int32'))).message).to.match(/lm_head\.weight: row 8/);
    });
  });
});

describe('packed matrices in compiled programs', () => {
  before(() => useBackend('tensorflow'));

  async function compiled(
    m: QuantizedMatrix,
    options: StorageOptions,
    fn: (w: StoredMatrix, x: tf.Tensor2D) => tf.Tensor,
    x: Float32Array | Int32Array,
    shape: number[],
  ): Promise<Float32Array> {
    const storage = quantizedStorage(m, options);
    const program = new Program();
    for (const [suffix, spec] of Object.entries(storage.variables)) program.variable(`w${suffix}`, spec);
    program.define('f', { x: { shape, dtype: x instanceof Int32Array ? 'int32' : 'float32' } }, (inputs, vars) => {
      const own = Object.fromEntries(Object.keys(storage.variables).map((suffix) => [suffix, vars[`w${suffix}`]!]));
      return { outputs: { y: fn(storage.weight(own) as StoredMatrix, inputs['x'] as tf.Tensor2D) } };
    });
    await program.compile();
    const { y } = program.callSync('f', { x });
    program.dispose();
    return y as Float32Array;
  }

  const forms: [string, StorageOptions, (4 | 8)[]][] = [
    ['rows', { device: 'gpu', activation_quantization: true }, [4, 8]],
    ['exact on a CPU', { device: 'cpu', activation_quantization: false }, [4, 8]],
    ['rounded activations by XLA', { device: 'cpu', activation_quantization: true, instructions: 'none' }, [4, 8]],
    ['kernel in vnni', { device: 'cpu', activation_quantization: true, instructions: 'vnni' }, [4]],
    ['kernel in avx2', { device: 'cpu', activation_quantization: true, instructions: 'avx2' }, [4]],
  ];
  for (const [name, options, kinds] of forms) {
    for (const bits of kinds) {
      for (const [out, inner, group] of [
        [48, 96, 32],
        [72, 256, 128],
        [130, 512, 256],
      ] as const) {
        const m = matrix(out, inner, group, bits);
        const { instructions = 'none' } = options;
        const kernel = instructions !== 'none';
        const rounds = bits === 4 && options.device === 'cpu' && options.activation_quantization;
        const missing = (): boolean => instructions !== 'none' && !tileInstructions(m).includes(instructions);
        for (const rows of [1, 3, 20, 101]) {
          it(`${name}, int${bits} [${out}, ${inner}] in groups of ${group}: ${rows} rows`, async function () {
            if (missing()) this.skip();
            const x = random(rows * inner, 7);
            const seen = rounds && (kernel || rows <= 8) ? roundedGroups(x, group) : x;
            const y = await compiled(m, options, (w, t) => w.apply(t), x, [rows, inner]);
            expectClose(y, product(seen, rows, m), 5e-5);
          });
        }
        it(`${name}, int${bits} [${out}, ${inner}] in groups of ${group}: lookup`, async function () {
          if (missing()) this.skip();
          const ids = Int32Array.of(out - 1, 0, 5, 5);
          const rows = await compiled(m, options, (w, t) => w.rows(t as unknown as tf.Tensor1D), ids, [4]);
          ids.forEach((id, i) =>
            expectClose(rows.slice(i * inner, (i + 1) * inner), dequantizeRows(m, id, id + 1), 1e-6, `row ${id}`),
          );
        });
      }
    }
    it(`${name}: gradient for the input`, async function () {
      const m = matrix(24, 64, 32);
      const { instructions = 'none' } = options;
      if (instructions !== 'none' && !tileInstructions(m).includes(instructions)) this.skip();
      const dy = random(2 * 24, 3);
      const weighted = (w: StoredMatrix, x: tf.Tensor2D): tf.Tensor =>
        tf.grad((t) => tf.sum(tf.mul(w.apply(t as tf.Tensor2D), tf.tensor2d(dy, [2, 24]))))(x);
      const got = await compiled(m, options, weighted, random(2 * 64, 4), [2, 64]);
      const w = dequantizeRows(m, 0, 24);
      const want = Float32Array.from({ length: 128 }, (_, i) => {
        let sum = 0;
        for (let o = 0; o < 24; o++) sum += dy[Math.floor(i / 64) * 24 + o]! * w[o * 64 + (i % 64)]!;
        return sum;
      });
      expectClose(got, want, 1e-5);
    });
  }

  it('only int4 has a kernel of its own on GPUs', () => {
    for (const bits of [4, 8] as const) {
      const storage = quantizedStorage(matrix(32, 64, 64, bits), { device: 'gpu', activation_quantization: true });
      const vars = Object.fromEntries(Object.keys(storage.variables).map((suffix) => [suffix, tf.zeros([32, 1])]));
      expect((storage.weight(vars) as StoredMatrix).fused !== undefined).to.equal(bits === 4);
      tf.dispose(vars);
    }
  });

  it('a 130m model takes less than 110 MB, head included, and declaring it reads no codes', () => {
    let bytes = 0;
    const add = (out: number, inner: number): void => {
      const scale = new Float32Array((inner / 128) * out);
      const m: QuantizedMatrix = {
        bits: 4,
        shape: [out, inner],
        groupSize: 128,
        scale,
        zero: scale,
        scaleDtype: 'bfloat16',
        get codes(): Uint8Array {
          throw new Error('read');
        },
      };
      // what the host keeps beside the program
      bytes += 2 * scale.byteLength;
      const { variables } = new QuantizedLinear(m).storage();
      for (const { shape, dtype } of Object.values(variables))
        bytes += shape.reduce((a, b) => a * b, dtype === 'uint8' ? 1 : 4);
    };
    add(50288, 768);
    for (let layer = 0; layer < 24; layer++) {
      add(3352, 768);
      add(768, 1536);
    }
    expect(bytes).to.be.within(70e6, 110e6);
  });

  it('an eager quantised weight in traced code is refused, not copied in', () => {
    const linear = new QuantizedLinear(matrix(8, 32, 32), 'in_proj.weight');
    const program = new Program();
    const error = thrown(() =>
      program.define('f', { x: { shape: [1, 32], dtype: 'float32' } }, ({ x }) => ({
        outputs: { y: linear.apply(x as tf.Tensor2D) },
      })),
    );
    expect(error).to.be.instanceOf(TracingError);
    expect(error.message).to.match(/in_proj\.weight is quantised/);
    program.dispose();
  });
});
