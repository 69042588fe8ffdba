import { expect } from 'chai';
import { decodeFloat32, encodeFloat32 } from '../../../src/base/stored_dtypes.js';
import { ssmStepKernel } from '../../../src/kernels/ssm_step/ptx.js';
import { ssmStepReference } from '../../../src/kernels/ssm_step/reference.js';
import {
  ssmStepBlocks,
  ssmStepFits,
  type SsmStepSpec,
  ssmStepTiling,
  type SsmStepTiling,
} from '../../../src/kernels/ssm_step/spec.js';
import { PUBLIC_SIZES } from '../../support/public_sizes.js';
import { runPtx } from '../../../src/kernels/interpret/ptx.js';

const small: SsmStepSpec = {
  rows: 3,
  heads: 4,
  headDim: 8,
  groups: 2,
  stateSize: 64,
  dtype: 'bfloat16',
  step: { stride: 32 + 2 * 128 + 8 + 4, offset: 4 },
  gate: { stride: 40, offset: 8, activated: false },
  norm: 'blocked',
};

const numbers = (size: number, seed: number): Float32Array => {
  let state = seed * 7919;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
};
const round = (x: Float32Array): Float32Array => decodeFloat32(encodeFloat32(x, 'BF16'), 'BF16');

interface Case {
  state: Float32Array;
  step: Float32Array;
  gate: Float32Array;
  D: Float32Array;
  gamma: Float32Array;
}

function inputs(spec: SsmStepSpec, off: readonly number[] = []): Case {
  const { rows, heads, headDim: p, groups, stateSize: n, step, gate, dtype } = spec;
  const values = numbers(rows * step.stride, 2);
  const first = step.offset + heads * p + 2 * groups * n;
  for (let row = 0; row < rows; row++)
    for (let h = 0; h < heads; h++) {
      const [dt, decay] = [row * step.stride + first + h, row * step.stride + first + heads + h];
      values[dt] = off.includes(row) ? 0 : 0.6 + 0.5 * values[dt]!;
      values[decay] = off.includes(row) ? 1 : 0.5 + 0.4 * values[decay]!;
    }
  const state = numbers(rows * heads * p * n, 1);
  return {
    state: dtype === 'bfloat16' ? round(state) : state,
    step: values,
    gate: numbers(rows * gate.stride, 3),
    D: numbers(heads, 4),
    gamma: numbers(heads * p, 5),
  };
}

interface Results {
  next: Float32Array;
  /** [rows, inner] */
  v: Float32Array;
  squares: Float32Array;
}

function run(spec: SsmStepSpec, given: Case, tiling: SsmStepTiling): Results {
  const { rows, heads, headDim: p, dtype, norm } = spec;
  const inner = heads * p;
  const bf16 = dtype === 'bfloat16';
  // as in a program: the result is the input's memory
  const bytes = bf16 ? encodeFloat32(given.state, 'BF16') : new Uint8Array(given.state.slice().buffer);
  const v = norm ? new Uint16Array(rows * inner).fill(0x7fc0) : new Float32Array(rows * inner).fill(NaN);
  const squares = new Float32Array(rows * ssmStepBlocks(spec, tiling)).fill(NaN);
  const { step, gate, D, gamma } = given;
  const memory = [bytes, step, gate, D, ...(norm ? [gamma] : []), bytes, v, ...(norm ? [squares] : [])];
  runPtx(ssmStepKernel(spec, tiling), memory);
  const next = decodeFloat32(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), bf16 ? 'BF16' : 'F32');
  if (!norm) return { next, v: v as Float32Array, squares };
  const stored = decodeFloat32(new Uint8Array(v.buffer), 'BF16'); // [inner/32, rows, 32]
  const flat = new Float32Array(rows * inner);
  for (let row = 0; row < rows; row++)
    for (let c = 0; c < inner; c++) flat[row * inner + c] = stored[(Math.floor(c / 32) * rows + row) * 32 + (c % 32)]!;
  return { next, v: flat, squares };
}

function check(spec: SsmStepSpec, tiling: SsmStepTiling, off: readonly number[] = []): Results {
  const given = inputs(spec, off);
  const got = run(spec, given, tiling);
  const want = ssmStepReference(spec, given);
  const { rows, heads, headDim, stateSize, dtype, norm } = spec;
  const inner = heads * headDim;
  const step = dtype === 'bfloat16' ? 2 ** -8 : 1e-6;
  want.next.forEach((x, i) => expect(got.next[i], `state ${i}`).to.be.closeTo(x, step * Math.abs(x) + 1e-6));
  for (const row of off) {
    const [begin, end] = [row, row + 1].map((r) => r * inner * stateSize);
    expect([...got.next.subarray(begin, end)]).to.deep.equal([...given.state.subarray(begin, end)]);
  }
  want.v.forEach((x, i) => {
    const scaled = norm ? x * given.gamma[i % inner]! : x;
    expect(got.v[i], `v ${i}`).to.be.closeTo(scaled, (norm ? 2 ** -8 * Math.abs(scaled) : 0) + 2e-5);
  });
  if (norm)
    for (let row = 0; row < rows; row++) {
      const blocks = ssmStepBlocks(spec, tiling);
      const sum = got.squares.subarray(row * blocks, (row + 1) * blocks).reduce((a, b) => a + b, 0);
      const all = want.v.slice(row * inner, (row + 1) * inner).reduce((a, x) => a + x * x, 0);
      expect(sum / all).to.be.closeTo(1, 1e-5);
    }
  return got;
}

const tiled = (spec: SsmStepSpec, change: Partial<SsmStepTiling> = {}): SsmStepTiling => ({
  ...ssmStepTiling(spec),
  ...change,
});

describe('the recurrence of several rows in PTX', () => {
  const cases: Record<string, Partial<SsmStepSpec>> = {
    'states in bfloat16': {},
    'states in float32': { dtype: 'float32' },
    'no norm after it': { norm: null },
    'rows one after another': { norm: 'row_major' },
    'a gate that is SiLU already, one group': { gate: { stride: 32, offset: 0, activated: true }, groups: 1 },
    'columns of a whole warp': { stateSize: 128, dtype: 'float32', step: { stride: 32 + 512 + 8, offset: 0 } },
    'columns of a lane': { stateSize: 8, step: { stride: 32 + 32 + 8, offset: 0 }, headDim: 64, heads: 2 },
  };
  const sized = (change: Partial<SsmStepSpec>): SsmStepSpec => {
    const spec = { ...small, ...change };
    const { heads, headDim: p, groups, stateSize: n } = spec;
    const stride = spec.step.offset + heads * p + 2 * groups * n + 2 * heads;
    return { ...spec, step: { ...spec.step, stride }, gate: { ...spec.gate, stride: heads * p + spec.gate.offset } };
  };
  for (const [name, change] of Object.entries(cases))
    it(`is the same as in plain loops: ${name}`, () => {
      const spec = sized(change);
      check(spec, tiled(spec));
    });

  it('does not depend on how it is shared out', () => {
    const spec = sized({ headDim: 16 });
    for (const change of [
      { loads: 1, warps: 8 },
      { loads: 2, warps: 4 },
      { loads: 4, warps: 1 },
      { warps: 2, loads: 4 },
    ])
      check(spec, tiled(spec, change));
  });

  it('leaves the states of rows as they are that are switched off', () => {
    for (const dtype of ['bfloat16', 'float32'] as const) {
      const spec = sized({ dtype });
      check(spec, tiled(spec), [1]);
      check(spec, tiled(spec), [0, 1, 2]);
    }
  });

  it('gives a row what it gives it alone', () => {
    const spec = sized({});
    const all = inputs(spec);
    const together = run(spec, all, tiled(spec));
    const { heads, headDim, stateSize } = spec;
    for (let row = 0; row < spec.rows; row++) {
      const part = (x: Float32Array): Float32Array =>
        x.slice((row * x.length) / spec.rows, ((row + 1) * x.length) / spec.rows);
      const own = { ...all, state: part(all.state), step: part(all.step), gate: part(all.gate) };
      const alone = run({ ...spec, rows: 1 }, own, tiled(spec));
      expect([...alone.next]).to.deep.equal([
        ...together.next.subarray(row * heads * headDim * stateSize).subarray(0, alone.next.length),
      ]);
      expect([...alone.v]).to.deep.equal([...part(together.v)]);
      expect([...alone.squares]).to.deep.equal([...part(together.squares)]);
    }
  });

  it('fits all public sizes', () => {
    for (const { d, groups, heads } of PUBLIC_SIZES)
      for (const rows of [2, 8, 64, 128])
        for (const dtype of ['bfloat16', 'float32'] as const) {
          const stride = 64 * heads + 256 * groups + 2 * heads;
          const spec = {
            ...small,
            rows,
            heads,
            headDim: 64,
            groups,
            stateSize: 128,
            dtype,
            step: { stride, offset: 0 },
            gate: { stride: 64 * heads, offset: 0, activated: true },
          };
          expect(ssmStepFits(spec), `${d} x ${rows}`).to.equal(true);
          expect(ssmStepTiling(spec).loads).to.equal(8);
        }
  });

  it('can be written wherever it fits', () => {
    let written = 0;
    for (const headDim of [2, 8, 12, 16, 64])
      for (const stateSize of [4, 8, 16, 64, 128])
        for (const dtype of ['bfloat16', 'float32'] as const) {
          const spec = sized({ headDim, stateSize, dtype });
          if (!ssmStepFits(spec)) continue;
          expect(ssmStepKernel(spec).text).to.include('elementwise_inline_asm');
          written++;
        }
    expect(written).to.be.greaterThan(0);
  });

  it('says where there is no kernel', () => {
    const fits = (change: Partial<SsmStepSpec>): boolean => ssmStepFits({ ...small, ...change });
    expect(fits({})).to.equal(true);
    expect(fits({ stateSize: 96 }), 'lanes that are no power of two').to.equal(false);
    expect(fits({ stateSize: 512 }), 'columns of more than a warp').to.equal(false);
    expect(fits({ headDim: 3 }), 'heads that warps do not share').to.equal(false);
    const smaller = { headDim: 8, stateSize: 8, dtype: 'float32' } as const;
    expect(fits(smaller), 'heads of fewer rows than a warp takes').to.equal(false);
    expect(fits({ groups: 3 }), 'groups that do not share the heads').to.equal(false);
    expect(fits({ step: { stride: 301, offset: 0 } }), 'B and C off their alignment').to.equal(false);
    expect(fits({ rows: 2 ** 20 }), 'offsets beyond int32').to.equal(false);
  });
});
