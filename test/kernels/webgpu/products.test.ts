/** WGSL products of one row and several, each format, at sizes that leave rests, against the reference in float64; and matrices that are cut. */
import { expect } from 'chai';
import type { OneRowSpec } from '../../../src/kernels/one_row/spec.js';
import { oneRowReference, type OneRowReferenceInputs } from '../../../src/kernels/one_row/reference.js';
import { embeddingKernel } from '../../../src/kernels/webgpu/embedding.js';
import { cutRows, type MatrixFormat, rowBytes } from '../../../src/kernels/webgpu/formats.js';
import { checked, dispatchOf } from '../../../src/kernels/webgpu/gpu.js';
import {
  productKernel,
  type ProductSpec,
  type ProductTiling,
  productTiling,
} from '../../../src/kernels/webgpu/product.js';
import { onWebGpu } from '../../support/dawn.js';
import { Draw, expectWithin } from '../host/cases.js';
import { matrixOf } from './matrices.js';
import { control, runKernels } from './run.js';

/** Relative error of one operation in float32. */
const ULP = 2 ** -24;

interface Case extends ProductSpec {
  tiling?: ProductTiling;
}

/** A case's sizes and what surrounds its product, random ones. */
function caseOf(draw: Draw, kind: MatrixFormat['kind'], seed: number): Case {
  const groups = draw.of([1, 1, 2, 3]);
  const unit = kind === 'int4' ? 32 : draw.of([1, 1, 8]);
  const rest = kind === 'int4' && draw.flag() ? 16 : 1; // groups of two, which leave no whole eights
  const span = Math.max(1, unit / rest) * draw.whole(1, unit > 1 ? 9 : 60);
  const inner = groups * span;
  const format: MatrixFormat = kind === 'int4' ? { kind, groupSize: Math.max(1, unit / rest) } : { kind };
  const [out, first, batch] = [draw.whole(1, 90), draw.of([0, 3]), seed % 2 ? draw.whole(2, 19) : 1];
  return {
    ...{ inner, out, first, format, batch, width: first + out + draw.of([0, 2]) },
    norm: draw.flag() ? { groups, epsilon: 1e-5 } : null,
    ...{ bias: draw.flag(), accumulate: draw.flag(), guarded: draw.flag() },
    ...(seed % 3 === 0 && {
      tiling:
        batch === 1
          ? { rows: draw.of([1, 2, 8]), texts: 1, threads: draw.of([8, 16, 64]) }
          : { rows: draw.of([1, 2]), texts: draw.of([1, 3, 4]), threads: draw.of([8, 16, 64]) },
    }),
  };
}

onWebGpu('WGSL products', (device) => {
  for (const kind of ['float32', 'bfloat16', 'int8', 'int4'] as const)
    for (let seed = 0; seed < 14; seed++) {
      const draw = new Draw(100 * seed + kind.length);
      const { tiling, ...spec } = caseOf(draw, kind, seed);
      const { inner, out, first, norm, batch, width } = spec;
      const shown = `${norm ? `norm of ${norm.groups}` : 'no norm'}${spec.bias ? ', bias' : ''}${spec.accumulate ? ', residual' : ''}`;
      it(`${kind} [${out}, ${inner}], ${batch} rows, ${shown} (${seed})`, async () => {
        const matrix = matrixOf(draw, spec.format, out, inner);
        const given = {
          ...{ x: draw.numbers(batch * inner, 2), gamma: draw.numbers(inner), bias: draw.numbers(first + out) },
          ...{ y: draw.numbers(batch * width), matrix: matrix.values, levels: matrix.levels },
          control: Uint32Array.from(Array.from({ length: batch }, (_, i) => [...control({ moves: Number(i !== 1) })]).flat()), // prettier-ignore
        };
        const { y } = await runKernels(device(), [productKernel(spec, tiling ?? productTiling(spec))], given, ['y']);
        const reference: OneRowSpec = {
          out,
          inner,
          format: { kind: 'float32' },
          ...(norm && { norm }),
          residual: true,
        };
        for (let b = 0; b < batch; b++) {
          const [x, before] = [given.x.subarray(b * inner, (b + 1) * inner), given.y.subarray(b * width, (b + 1) * width)]; // prettier-ignore
          const got = y.subarray(b * width, (b + 1) * width);
          if (spec.guarded && b === 1) {
            expect([...got], 'a row that is switched off').to.deep.equal([...before]);
            continue;
          }
          const residual = Array.from(
            { length: out },
            (_, o) => (spec.accumulate ? before[first + o]! : 0) + (spec.bias ? given.bias[first + o]! : 0),
          );
          const inputs = { x, gamma: given.gamma, residual, epilogue: {} as OneRowReferenceInputs['epilogue'] };
          const values = oneRowReference(reference, { ...inputs, weight: (o, i) => matrix.weights[o * inner + i]! });
          // what a sum goes astray by: sizes of its terms times their number
          const sizes = oneRowReference(reference, {
            ...{ ...inputs, gamma: Array.from(given.gamma, Math.abs), x: Array.from(x, Math.abs) },
            residual: residual.map(Math.abs),
            weight: (o, i) => matrix.sizes[o * inner + i]!,
          });
          const bounds = Float64Array.from(sizes, (size) => (inner / 4 + 24) * ULP * size);
          expectWithin(got.subarray(first, first + out), { values: Float64Array.from(values), bounds }, `y ${b}`);
          const around = (all: Float32Array): number[] => [...all.subarray(0, first), ...all.subarray(first + out)];
          expect(around(got), 'before the first and after the last').to.deep.equal(around(before));
        }
      });

      it(`${kind} [${out}, ${inner}]: a row of it by number (${seed})`, async () => {
        const matrix = matrixOf(draw, spec.format, out, inner);
        const tokens = Array.from({ length: batch }, () => draw.whole(0, out - 1));
        const given = { matrix: matrix.values, levels: matrix.levels, x: new Float32Array(batch * inner).fill(NaN) };
        const of = (at: number, words: readonly number[]) =>
          runKernels(
            device(),
            [embeddingKernel({ inner, out, format: spec.format, first: at, batch })],
            { ...given, control: Uint32Array.from(words.flatMap((token) => [...control({ token })])) },
            ['x'],
          );
        const { x } = await of(
          1000,
          tokens.map((token) => 1000 + token),
        );
        tokens.forEach((token, b) => {
          const row = (all: Float64Array): Float64Array => all.slice(token * inner, (token + 1) * inner);
          const bounds = row(matrix.sizes).map((size) => 4 * ULP * size);
          expectWithin(x.subarray(b * inner, (b + 1) * inner), { values: row(matrix.weights), bounds }, 'row');
        });
        for (const elsewhere of [999, 1000 + out]) {
          const words = tokens.map(() => elsewhere);
          expect((await of(1000, words)).x.every(Number.isNaN), 'of another part').to.equal(true);
        }
      });
    }

  it('does nothing where the step is switched off', async () => {
    const spec = { inner: 8, out: 3, first: 0, batch: 1, width: 3, format: { kind: 'float32' } as const, norm: null };
    const kernel = productKernel({ ...spec, bias: false, accumulate: false, guarded: true });
    const given = { x: new Float32Array(8).fill(1), matrix: new Float32Array(24).fill(1), y: new Float32Array(3) };
    const run = (moves: number) => runKernels(device(), [kernel], { ...given, control: control({ moves }) }, ['y']);
    expect([...(await run(0)).y]).to.deep.equal([0, 0, 0]);
    expect([...(await run(1)).y]).to.deep.equal([8, 8, 8]);
  });

  it('what the device does not take is an error that says why', async () => {
    const kernel = { code: '@compute @workgroup_size(1) fn main() { nothing(); }', bindings: [], workgroups: 1 };
    const said = await checked(device(), 'A kernel', () => dispatchOf(device(), kernel, {})).ready.catch(
      (error: Error) => `${error.name}: ${error.message}`,
    );
    expect(said).to.match(/^DeviceError: A kernel cannot be on this WebGPU device: .*nothing/s);
    await checked(device(), 'A kernel', () => dispatchOf(device(), { ...kernel, code: '@compute @workgroup_size(1) fn main() {}' }, {})).ready; // prettier-ignore
  });

  it('a matrix is cut at whole multiples of 256 rows, and in no more parts than it needs', () => {
    const most = 128 * 2 ** 20;
    const heads: [MatrixFormat, number, number][] = [
      [{ kind: 'float32' }, 50288, 768],
      [{ kind: 'bfloat16' }, 50288, 2560],
      [{ kind: 'int4', groupSize: 2 }, 256000, 4096],
      [{ kind: 'int8' }, 33, 7],
      [{ kind: 'float32' }, 70000, 1],
    ];
    for (const [format, out, inner] of heads) {
      const cuts = cutRows(format, out, inner, most);
      expect(cuts.reduce((sum, [first, rows]) => (expect(first).to.equal(sum), sum + rows), 0)).to.equal(out);
      for (const [first, rows] of cuts) {
        expect(first % 256).to.equal(0);
        expect(rows).to.be.at.most(65535);
        for (const bytes of Object.values(rowBytes(format, inner, rows))) expect(bytes).to.be.at.most(most);
      }
    }
    expect(cutRows({ kind: 'float32' }, 50288, 768, most).length).to.equal(2);
    expect(cutRows({ kind: 'bfloat16' }, 50288, 768, most).length).to.equal(1);
  });
});
