/** The int4 kernels of CPUs, of random sizes, against their reference in plain loops. */
import type * as tf from '@tensorflow/tfjs';
import { Program, type TensorSpec } from '../../../src/jit/index.js';
import {
  int4Instructions,
  int4Product,
  type Instructions,
  TILE,
  type TiledMatrix,
} from '../../../src/kernels/index.js';
import { type Bounded, int4ProductReference, type PlainOperands } from '../../../src/kernels/host/reference.js';
import { useBackend } from '../../support/backends.js';
import { Draw, expectNear } from './cases.js';

type Operands = Record<string, Float32Array | Uint8Array>;

/** What a function of the program is given and what it must give. */
interface Case {
  name: string;
  matrix: Omit<TiledMatrix, 'codes' | 'scale' | 'zero'>;
  operands: Operands;
  run: (matrix: TiledMatrix, t: Record<string, tf.Tensor>) => tf.Tensor;
  want: Bounded;
}

/** A matrix of random sizes. */
function drawMatrix(draw: Draw): { matrix: Case['matrix']; operands: Operands } {
  const groupSize = draw.of([32, 64, 128]);
  const [groups, out] = [draw.whole(1, 4), draw.whole(1, 110)];
  const inner = groups * groupSize;
  return { matrix: { out, inner, groupSize, bf16Levels: draw.flag() }, operands: draw.codes(out, inner, groupSize) };
}

function productCase(instructions: Instructions, seed: number): Case {
  const draw = new Draw(seed);
  const { matrix, operands } = drawMatrix(draw);
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
    return program.callSync(`case${i}`, given)['y'] as Float32Array;
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
    it(`${instructions}: a product of any number of rows is as far from its reference as float32 may be`, async function () {
      if (!int4Instructions().includes(instructions)) this.skip();
      const cases = Array.from({ length: 24 }, (_, seed) => productCase(instructions, 1000 * seed + 17));
      const results = await runAll(cases);
      cases.forEach(({ name, want }, i) => expectNear(results[i]!, want, name));
    });
});
