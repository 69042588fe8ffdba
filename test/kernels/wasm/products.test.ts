/** WebAssembly kernels: each against plain loops in float64, at sizes that leave rests; and the bytes that are the source's. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import {
  heldBytes,
  type PackedMatrix,
  packedProduct,
  packedRows,
  wasmDense,
  wasmTakes,
} from '../../../src/kernels/index.js';
import { type PlainMatrix, randomMatrix } from '../../support/packed_matrices.js';
import { wasmKernels } from '../../../scripts/wasm_kernels.js';
import { useBackend } from '../../support/backends.js';
import { lcg } from '../../support/random.js';

/** Relative error of one operation in float32. */
const ULP = 2 ** -24;

const random = (size: number, seed: number): Float32Array => {
  const next = lcg(seed);
  return Float32Array.from({ length: size }, () => next() * 2 - 1);
};

/**
 * x·Wᵀ in plain loops and float64, with how far float32 may be from each value: a sum goes astray by its terms' sizes times their number, in whatever order.
 */
function plainProduct(x: Float32Array, { out, inner, values, sizes }: PlainMatrix) {
  const rows = x.length / inner;
  const y = new Float64Array(rows * out);
  const bounds = new Float64Array(rows * out);
  for (let r = 0; r < rows; r++)
    for (let o = 0; o < out; o++) {
      let [sum, size] = [0, 0];
      for (let c = 0; c < inner; c++) {
        sum += x[r * inner + c]! * values[o * inner + c]!;
        size += Math.abs(x[r * inner + c]!) * sizes[o * inner + c]!;
      }
      y[r * out + o] = sum;
      bounds[r * out + o] = (inner / 4 + 12) * ULP * size;
    }
  return { values: y, bounds };
}

function expectWithin(got: tf.Tensor, { values, bounds }: { values: Float64Array; bounds: Float64Array }): void {
  const all = got.dataSync();
  expect(all.length).to.equal(values.length);
  values.forEach((want, i) => {
    if (!(Math.abs(all[i]! - want) <= bounds[i]!))
      expect.fail(`value ${i} is ${all[i]}, expected ${want} within ${bounds[i]}`);
  });
  got.dispose();
}

/** Random sizes, the same every time; channels in multiples of `unit`. */
function sizes(count: number, unit: number, seed: number): [rows: number, inner: number, out: number][] {
  const next = lcg(seed);
  const whole = (most: number): number => 1 + Math.floor(next() * most);
  return Array.from({ length: count }, () => [whole(9), unit * whole(Math.ceil(300 / unit)), whole(140)]);
}

function placed({ bits, out, inner, groupSize, codes, levels }: PlainMatrix): PackedMatrix {
  return { bits, out, inner, groupSize, codes: heldBytes(codes), levels: tf.tensor1d(levels, 'float32') };
}

describe('WebAssembly kernels', () => {
  let before: tf.MemoryInfo;
  beforeEach(async () => {
    await useBackend('wasm');
    before = tf.memory();
  });
  afterEach(() => {
    const { numTensors, numBytes } = tf.memory();
    expect([numTensors, numBytes], 'left').to.deep.equal([before.numTensors, before.numBytes]);
  });

  it('are compiled from their sources as they are, and hold no data of their own', async () => {
    const text = fs.readFileSync('src/kernels/wasm/binary.ts', 'utf8');
    expect(text === (await wasmKernels()), 'run `npx tsx scripts/wasm_kernels.ts`').to.equal(true);
    const bytes = Buffer.from(/BINARY = '(.*)'/.exec(text)![1]!, 'base64');
    // sections by number: data (11) would be written over TensorFlow.js' own, and memory (5) be another
    const found: number[] = [];
    for (let at = 8; at < bytes.length;) {
      found.push(bytes[at++]!);
      let [size, shift] = [0, 0];
      for (let more = true; more; shift += 7) {
        size |= (bytes[at]! & 127) << shift;
        more = (bytes[at++]! & 128) !== 0;
      }
      at += size;
    }
    expect(found).to.include.members([1, 2, 10]).and.not.include.members([5]).and.not.include.members([11]);
  });

  for (const [rows, inner, out] of [[1, 1, 1], [2, 4, 4], [3, 7, 5], ...sizes(12, 1, 1)] as const)
    it(`float32 [${out}, ${inner}], ${rows} rows`, () => {
      const [x, w] = [random(rows * inner, 2), random(out * inner, 3)];
      const [a, b] = [tf.tensor2d(x, [rows, inner]), tf.tensor2d(w, [out, inner])];
      const plain = { out, inner, values: Float64Array.from(w), sizes: Float64Array.from(w, Math.abs) } as PlainMatrix;
      expectWithin(wasmDense(a, b)!, plainProduct(x, plain));
      tf.dispose([a, b]);
    });

  it('float32: gradients for both sides', () =>
    tf.tidy(() => {
      const [x, w] = [tf.tensor2d(random(15, 1), [3, 5]), tf.tensor2d(random(35, 2), [7, 5])];
      const of = (product: (x: tf.Tensor2D, w: tf.Tensor2D) => tf.Tensor) =>
        tf.grads((a, b) => tf.sum(tf.square(product(a as tf.Tensor2D, b as tf.Tensor2D))))([x, w]);
      const [got, want] = [of((a, b) => wasmDense(a, b)!), of((a, b) => tf.matMul(a, b, false, true))];
      got.forEach((grad, i) => expect(tf.max(tf.abs(tf.sub(grad, want[i]!))).dataSync()[0]).to.be.below(1e-5));
    }));

  for (const [bits, unit, groups] of [
    [4, 256, [32, 64, 128, 256]],
    [8, 1, [0]],
    [16, 1, [0]],
  ] as const)
    for (const [i, [rows, inner, out]] of sizes(8, unit, bits).entries()) {
      const groupSize = groups[i % groups.length]! || inner;
      it(`${bits} bits [${out}, ${inner}] in groups of ${groupSize}: ${rows} rows, one, and lookup`, () => {
        const plain = randomMatrix(bits, { out, inner, groupSize }, i);
        const matrix = placed(plain);
        const x = random(rows * inner, 5);
        const [all, one] = [tf.tensor2d(x, [rows, inner]), tf.tensor2d(x.subarray(0, inner), [1, inner])];
        expectWithin(packedProduct(matrix, all), plainProduct(x, plain));
        expectWithin(packedProduct(matrix, one), plainProduct(x.subarray(0, inner), plain));
        const ids = [out - 1, 0, Math.floor(out / 2)];
        const want = Float64Array.from(ids.flatMap((id) => [...plain.float32.subarray(id * inner, (id + 1) * inner)]));
        expectWithin(packedRows(matrix, ids), { values: want, bounds: new Float64Array(want.length) });
        tf.dispose([all, one, matrix.codes, matrix.levels]);
      });
    }

  it('zeros give zeros, and the largest values stay finite', () => {
    const matrix = placed(randomMatrix(4, { out: 5, inner: 64, groupSize: 32 }, 1));
    for (const value of [0, 1e30]) {
      const x = tf.fill([1, 64], value) as tf.Tensor2D;
      const y = packedProduct(matrix, x);
      expect([...y.dataSync()].every((v) => (value === 0 ? v === 0 : Number.isFinite(v)))).to.equal(true);
      y.dispose();
      x.dispose();
    }
    tf.dispose([matrix.codes, matrix.levels]);
  });

  it('packed matrices take their bytes and no more, while a product needs a block of rows beside them', () => {
    const shape = { out: 301, inner: 512, groupSize: 128 };
    const bytes = (bits: 4 | 8 | 16): number => {
      const start = tf.memory().numBytes;
      const matrix = placed(randomMatrix(bits, shape, 2));
      const x = tf.ones([6, 512]) as tf.Tensor2D;
      packedProduct(matrix, x).dispose();
      x.dispose();
      const held = tf.memory().numBytes - start;
      tf.dispose([matrix.codes, matrix.levels]);
      return held;
    };
    const codes = 301 * 512;
    expect(bytes(4)).to.equal(codes / 2 + 301 * 4 * 8);
    expect(bytes(8)).to.equal(codes + 301 * 4);
    expect(bytes(16)).to.equal(codes * 2);
  });

  it('are not there for other groups, nor on other backends', async () => {
    expect([32, 96, 4096].map((group) => wasmTakes(4, group))).to.deep.equal([true, true, true]);
    expect([2, 48, 8192].map((group) => wasmTakes(4, group))).to.deep.equal([false, false, false]);
    await useBackend('cpu');
    expect(wasmTakes(8, 32)).to.equal(false);
    const x = tf.ones([1, 1]) as tf.Tensor2D;
    expect(wasmDense(x, x)).to.equal(null);
    x.dispose();
    await useBackend('wasm');
  });

  it('the memory of a long run stays as it is', () => {
    const heap = (): number => (tf.backend() as unknown as { wasm: { HEAPU8: Uint8Array } }).wasm.HEAPU8.byteLength;
    const matrix = placed(randomMatrix(4, { out: 64, inner: 256, groupSize: 64 }, 3));
    const x = tf.ones([1, 256]) as tf.Tensor2D;
    const run = (): void => packedProduct(matrix, x).dispose();
    run();
    const start = heap();
    for (let i = 0; i < 3000; i++) run();
    expect(heap()).to.equal(start);
    tf.dispose([x, matrix.codes, matrix.levels]);
  });
});
