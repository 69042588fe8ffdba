/** The int4 kernels of CPUs, of random sizes, against their reference in plain loops. */
import { expect } from 'chai';
import type * as tf from '@tensorflow/tfjs';
import { Program, type TensorSpec } from '../../../src/jit/index.js';
import {
  int4Instructions,
  int4Product,
  int4Row,
  type Instructions,
  type OneRowInputs,
  TILE,
  type TiledMatrix,
} from '../../../src/kernels/index.js';
import type { Int4RowCall } from '../../../src/kernels/host/spec.js';
import {
  type Bounded,
  int4ProductReference,
  int4RowReference,
  type PlainOperands,
} from '../../../src/kernels/host/reference.js';
import { useBackend } from '../../support/backends.js';
import { lcg } from '../../support/random.js';

type Operands = Record<string, Float32Array | Uint8Array>;

/** What a function of the program is given and what it must give. */
interface Case {
  name: string;
  matrix: Omit<TiledMatrix, 'codes' | 'scale' | 'zero'>;
  operands: Operands;
  run: (matrix: TiledMatrix, t: Record<string, tf.Tensor>) => tf.Tensor;
  want: Bounded;
}

class Draw {
  private readonly next: () => number;
  constructor(seed: number) {
    this.next = lcg(seed);
  }
  whole(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }
  flag(): boolean {
    return this.next() < 0.5;
  }
  of<T>(values: readonly T[]): T {
    return values[this.whole(0, values.length - 1)]!;
  }
  divisor(n: number): number {
    return this.of(Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0 && d <= 16));
  }
  numbers(size: number, spread = 1): Float32Array {
    return Float32Array.from({ length: size }, () => (this.next() * 2 - 1) * spread);
  }
  /** Numbers that bfloat16 holds too. */
  levels(size: number, spread: number): Float32Array {
    const bits = new Uint32Array(this.numbers(size, spread).buffer).map((word) => word & 0xffff0000);
    return new Float32Array(bits.buffer);
  }
  matrix(): { matrix: Case['matrix']; operands: Operands } {
    const groupSize = this.of([32, 64, 128]);
    const [groups, out] = [this.whole(1, 4), this.whole(1, 110)];
    const size = Math.ceil(out / TILE) * groups * TILE;
    return {
      matrix: { out, inner: groups * groupSize, groupSize, bf16Levels: this.flag() },
      operands: {
        codes: Uint8Array.from({ length: (size * groupSize) / 2 }, () => this.whole(0, 255)),
        scale: this.levels(size, 0.1),
        zero: this.levels(size, 0.3),
      },
    };
  }
}

function productCase(instructions: Instructions, seed: number): Case {
  const draw = new Draw(seed);
  const { matrix, operands } = draw.matrix();
  const rows = draw.whole(1, 20);
  const given = { ...operands, x: draw.numbers(rows * matrix.inner, 3) };
  const { inner, out, groupSize: group, bf16Levels } = matrix;
  return {
    name: `${rows} rows of ${inner} in groups of ${group}, ${out} outputs`,
    matrix,
    operands: given,
    run: (w, { x }) => int4Product(instructions, w, x!.reshape([rows, inner])),
    want: int4ProductReference({ rows, inner, group, out, bf16Levels }, given),
  };
}

function rowCase(instructions: Instructions, seed: number): Case {
  const draw = new Draw(seed);
  const { matrix, operands } = draw.matrix();
  const { inner, out, groupSize: group, bf16Levels } = matrix;
  const [hasGate, hasNorm, hasResidual, hasEpilogue] = [draw.flag(), draw.flag(), draw.flag(), draw.flag()];
  const hasSkip = hasGate && draw.flag();
  const [normGroups, skipHeads, skipOffset] = [draw.divisor(inner), draw.divisor(inner), inner + draw.whole(0, 9)];
  const first = draw.whole(0, out - 1);
  const channels = draw.whole(0, out - first);
  const heads = out - first - channels;
  const [taps, hasBias, layer] = [draw.whole(1, 5), draw.flag(), draw.whole(0, 2)];
  const [low, high] = draw.of([
    [0, Infinity],
    [0.4, 1.5],
  ] as const);
  const given: Operands = {
    ...operands,
    x: draw.numbers(inner, 2),
    gate: draw.numbers(2 * inner + 9, 4),
    d: draw.numbers(skipHeads),
    gamma: draw.numbers(inner),
    residual: draw.numbers(out),
    context: draw.numbers(Math.max(1, 3 * (taps - 1) * channels)),
    taps: draw.numbers(Math.max(1, channels * taps)),
    bias: draw.numbers(Math.max(1, channels)),
    dtBias: draw.numbers(heads, 4),
  };
  const place = layer * (taps - 1) * channels;
  const epilogueThere = hasEpilogue && channels > 0 && heads > 0;
  const epilogue = { first, channels, taps, low, high, place };
  const call: Int4RowCall = {
    ...{ inner, group, out, hasGate, hasSkip, hasNorm, hasResidual, bf16Levels },
    ...{ hasEpilogue: epilogueThere, hasBias: epilogueThere && hasBias },
    ...{ skipHeads, skipOffset, normGroups, epsilon: 1e-5, ...epilogue },
  };
  const around = Object.entries({ hasGate, hasSkip, hasNorm, hasResidual, hasEpilogue: epilogueThere });
  const inputs = (t: Record<string, tf.Tensor>): OneRowInputs => ({
    x: t['x']!,
    ...(hasGate && { gate: t['gate'] }),
    ...(hasSkip && { skip: { d: t['d']!, offset: skipOffset } }),
    ...(hasNorm && { norm: { gamma: t['gamma']!, groups: normGroups, epsilon: 1e-5 } }),
    ...(hasResidual && { residual: t['residual'] }),
    ...(epilogueThere && {
      epilogue: {
        ...{ first, channels, taps, heads, limit: [low, high] as const, context: t['context']!, place },
        ...{ weights: t['taps']!, bias: hasBias ? t['bias'] : undefined, dtBias: t['dtBias']! },
      },
    }),
  });
  return {
    name: `${inner} in groups of ${group}, ${out} outputs, ${around.flatMap(([name, there]) => (there ? [name] : []))}`,
    matrix,
    operands: given,
    run: (w, t) => int4Row(instructions, w, inputs(t))!,
    want: int4RowReference(call, given),
  };
}

/** One program of all cases. */
async function runAll(cases: readonly Case[]): Promise<Float32Array[]> {
  const program = new Program();
  cases.forEach(({ matrix, operands, run }, i) => {
    const shape = [Math.ceil(matrix.out / TILE), matrix.inner / matrix.groupSize, TILE];
    const dtype = matrix.bf16Levels ? 'bfloat16' : 'float32';
    const stored = (values: Float32Array): ArrayBufferView =>
      matrix.bf16Levels ? Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16) : values;
    const codes = [...shape.slice(0, 2), matrix.groupSize / 8, TILE, 4];
    program.variable(`codes${i}`, { shape: codes, dtype: 'uint8', init: () => operands['codes']! });
    for (const level of ['scale', 'zero'])
      program.variable(`${level}${i}`, { shape, dtype, init: () => stored(operands[level] as Float32Array) });
    const inputs: Record<string, TensorSpec> = {};
    for (const name of inputNames(operands)) inputs[name] = { shape: [1, operands[name]!.length], dtype: 'float32' };
    program.define(`case${i}`, inputs, (t, vars) => {
      const w = { ...matrix, codes: vars[`codes${i}`]!, scale: vars[`scale${i}`]!, zero: vars[`zero${i}`]! };
      return { outputs: { y: run(w, t) } };
    });
  });
  await program.compile();
  const results = cases.map(({ operands }, i) => {
    const given = Object.fromEntries(inputNames(operands).map((name) => [name, operands[name] as Float32Array]));
    return program.call(`case${i}`, given)['y'] as Float32Array;
  });
  program.dispose();
  return results;
}

/** Of operands that are no variables. */
const inputNames = (operands: PlainOperands): string[] =>
  Object.keys(operands).filter((name) => !['codes', 'scale', 'zero'].includes(name) && operands[name]!.length > 0);

describe('int4 kernels on a CPU', () => {
  before(() => useBackend('tensorflow'));

  for (const instructions of ['vnni', 'avx2'] as const)
    for (const [what, make] of [
      ['a product of any number of rows', productCase],
      ['a row with what is around it', rowCase],
    ] as const)
      it(`${instructions}: ${what} is as far from its reference as float32 may be`, async function () {
        if (!int4Instructions().includes(instructions)) this.skip();
        const cases = Array.from({ length: 24 }, (_, seed) => make(instructions, 1000 * seed + 17));
        const results = await runAll(cases);
        cases.forEach(({ name, want }, i) => {
          const got = results[i]!;
          expect(got.length, name).to.equal(want.values.length);
          got.forEach((value, o) => {
            const [wanted, bound] = [want.values[o]!, want.bounds[o]!];
            expect(Math.abs(value - wanted), `${name}: ${value} at ${o}, expected ${wanted}`).to.be.at.most(bound);
          });
          // and the bounds are no excuse for anything
          const typical = (values: ArrayLike<number>): number => Math.hypot(...Array.from(values)) / values.length;
          expect(typical(want.bounds), name).to.be.below(2e-3 * typical(want.values));
        });
      });
});
