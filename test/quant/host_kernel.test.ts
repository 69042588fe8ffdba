/** Kernels of our own for int4 on CPUs: the whole of a decoding step around a product, against plain loops in float64. */
import { expect } from 'chai';
import * as tf from '@tensorflow/tfjs';
import { Program } from '../../src/jit/index.js';
import { type OneRowInputs } from '../../src/kernels/index.js';
import type { StoredMatrix } from '../../src/layers/weights.js';
import { dequantizeRows, quantizeMatrix, type QuantizedMatrix } from '../../src/quant/index.js';
import { nativeInt4Forms, nativeInt4Storage, tiledCodes } from '../../src/quant/host_kernel.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { clamp, roundedGroups, silu, softplus } from '../support/oracle.js';
import { lcg } from '../support/random.js';

const random = (size: number, seed: number, spread = 1): Float32Array => {
  const next = lcg(seed);
  return Float32Array.from({ length: size }, () => (next() * 2 - 1) * spread);
};

interface Around {
  gate?: boolean;
  /** Heads of D */
  skip?: number;
  /** Groups of the norm */
  norm?: number;
  residual?: boolean;
  after?: { first: number; channels: number; taps: number; heads: number; bias: boolean; limit: [number, number] };
}

interface Sizes {
  out: number;
  inner: number;
  group: number;
}

const EPSILON = 1e-5;

type InputName = 'x' | 'gate' | 'd' | 'gamma' | 'residual' | 'context' | 'taps' | 'bias' | 'dtBias';

/** What a step is given, by name. */
function inputsOf({ out, inner }: Sizes, { skip, after }: Around): Record<InputName, Float32Array> {
  const width = after ? 3 * (after.taps - 1) * after.channels : 0; // three layers
  return {
    x: random(inner, 1),
    gate: random(2 * inner + 3, 2, 4),
    d: random(skip ?? 0, 3),
    gamma: random(inner, 4),
    residual: random(out, 5),
    context: random(width, 6),
    taps: random(after ? after.channels * after.taps : 0, 7),
    bias: random(after?.channels ?? 0, 8),
    dtBias: random(after?.heads ?? 0, 9, 6),
  };
}

function expected(m: QuantizedMatrix, { out, inner, group }: Sizes, around: Around): Float64Array {
  const { gate, skip, norm, residual, after } = around;
  const given = inputsOf({ out, inner, group }, around);
  const v = Float64Array.from(given.x, (value, i) => {
    const skipped = skip ? value + given.d[Math.floor(i / (inner / skip))]! * given.gate[inner + 3 + i]! : value;
    return gate ? skipped * silu(given.gate[i]!) : skipped;
  });
  const span = inner / (norm ?? 1);
  for (let from = 0; norm && from < inner; from += span) {
    const squares = v.subarray(from, from + span).reduce((sum, value) => sum + value * value, 0);
    for (let i = from; i < from + span; i++) v[i]! *= given.gamma[i]! / Math.sqrt(squares / span + EPSILON);
  }
  const rounded = roundedGroups(Float32Array.from(v), group);
  const w = dequantizeRows(m, 0, out);
  const y = Float64Array.from({ length: out }, (_, o) =>
    rounded.reduce((sum, value, i) => sum + value * w[o * inner + i]!, residual ? given.residual[o]! : 0),
  );
  if (!after) return y;
  const { first, channels, taps, heads, limit } = after;
  const place = (taps - 1) * channels; // the second layer
  const xBC = Array.from({ length: channels }, (_, c) => {
    let sum = (after.bias ? given.bias[c]! : 0) + y[first + c]! * given.taps[c * taps + taps - 1]!;
    for (let i = 0; i < taps - 1; i++) sum += given.context[place + i * channels + c]! * given.taps[c * taps + i]!;
    return silu(sum);
  });
  const dt = Array.from({ length: heads }, (_, h) =>
    clamp(softplus(y[first + channels + h]! + given.dtBias[h]!), limit),
  );
  return Float64Array.from([...y, ...xBC, ...dt]);
}

function matrix({ out, inner, group }: Sizes, scaleDtype: 'float32' | 'bfloat16'): QuantizedMatrix {
  return quantizeMatrix(random(out * inner, out), [out, inner], { bits: 4, groupSize: group, scaleDtype }).matrix;
}

function fusedInputs(t: Record<InputName, tf.Tensor>, { inner }: Sizes, around: Around): OneRowInputs {
  const { gate, skip, norm, residual, after } = around;
  return {
    x: t.x,
    ...((gate || skip) && { gate: t.gate }),
    ...(skip && { skip: { d: t.d, offset: inner + 3 } }),
    ...(norm && { norm: { gamma: t.gamma, groups: norm, epsilon: EPSILON } }),
    ...(residual && { residual: t.residual }),
    ...(after && {
      epilogue: {
        ...after,
        context: t.context,
        place: (after.taps - 1) * after.channels,
        weights: t.taps,
        bias: after.bias ? t.bias : undefined,
        dtBias: t.dtBias,
      },
    }),
  };
}

describe('int4 kernels on a CPU', () => {
  before(() => useBackend('tensorflow'));

  const sizes = { out: 70, inner: 128, group: 64 };
  const projection = {
    first: 20,
    channels: 46,
    taps: 4,
    heads: 4,
    bias: true,
    limit: [0, Infinity] as [number, number],
  };
  const cases: [string, Sizes, Around][] = [
    ['a bare product', sizes, {}],
    ['norm', { out: 64, inner: 96, group: 32 }, { norm: 1 }],
    ['norm by groups, residual', sizes, { norm: 4, residual: true }],
    [
      'gate, skip, norm, residual',
      { out: 40, inner: 256, group: 128 },
      { gate: true, skip: 8, norm: 1, residual: true },
    ],
    ['norm, convolution, step sizes', sizes, { norm: 1, after: projection }],
    ['two taps, no bias, bounds', sizes, { norm: 1, after: { ...projection, taps: 2, bias: false, limit: [0.5, 2] } }],
    ['channels from the first output on', sizes, { after: { ...projection, first: 0, channels: 64, heads: 6 } }],
  ];
  for (const instructions of ['vnni', 'avx2'] as const) {
    for (const scales of ['float32', 'bfloat16'] as const) {
      for (const [name, size, around] of cases) {
        it(`${instructions}, ${scales} scales: ${name}`, async function () {
          const m = matrix(size, scales);
          if (!nativeInt4Forms(m).includes(instructions)) this.skip();
          const storage = nativeInt4Storage(m, instructions);
          const program = new Program();
          for (const [suffix, spec] of Object.entries(storage.variables)) program.variable(`w${suffix}`, spec);
          const given = Object.fromEntries(Object.entries(inputsOf(size, around)).filter(([, v]) => v.length > 0));
          const spec = Object.fromEntries(
            Object.entries(given).map(([key, v]) => [key, { shape: [1, v.length], dtype: 'float32' as const }]),
          );
          program.define('step', spec, (t, vars) => {
            const own = Object.fromEntries(Object.keys(storage.variables).map((s) => [s, vars[`w${s}`]!]));
            const weight = storage.weight(own) as StoredMatrix;
            return { outputs: { y: weight.fused!(fusedInputs(t as Record<InputName, tf.Tensor>, size, around))! } };
          });
          await program.compile();
          const y = program.call('step', given).y!;
          program.dispose();
          const want = expected(m, size, around);
          expect(y.length).to.equal(want.length);
          expectClose(y as Float32Array, want, 3e-5);
        });
      }
    }
  }

  it('leaves more than one row, and norms that do not fit, to others', () => {
    const m = matrix(sizes, 'float32');
    const vars = {
      '.codes': tf.zeros([3, 2, 8, 32, 4]),
      '.scale': tf.zeros([3, 2, 32]),
      '.zero': tf.zeros([3, 2, 32]),
    };
    const weight = nativeInt4Storage(m, 'avx2').weight(vars) as StoredMatrix;
    const x = tf.zeros([2, sizes.inner]);
    const gamma = tf.ones([sizes.inner]);
    expect(weight.fused!({ x })).to.equal(null);
    expect(weight.fused!({ x: tf.slice(x, 0, 1), norm: { gamma, groups: 3, epsilon: EPSILON } })).to.equal(null);
    tf.dispose([vars, x, gamma]);
  });

  it('tiles hold every code once: four channels of an output side by side, the group’s halves in a byte', () => {
    const m = matrix({ out: 35, inner: 64, group: 32 }, 'float32');
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
});
