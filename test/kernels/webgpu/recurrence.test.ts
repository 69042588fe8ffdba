/** WGSL kernels between the projections, each against its reference, and with the projections as a whole layer against that of a layer. */
import { expect } from 'chai';
import { epilogueReference } from '../../../src/kernels/epilogue/reference.js';
import { layerStepReference } from '../../../src/kernels/host/layer_reference.js';
import type { LayerStepCall } from '../../../src/kernels/host/spec.js';
import { ssmStepReference } from '../../../src/kernels/ssm_step/reference.js';
import { productKernel } from '../../../src/kernels/webgpu/product.js';
import {
  convolutionKernel,
  recurrenceKernel,
  type RecurrenceSpec,
  recurrenceTiling,
  widths,
} from '../../../src/kernels/webgpu/recurrence.js';
import { onWebGpu } from '../../support/dawn.js';
import { Draw, expectWithin } from '../host/cases.js';
import { matrixOf } from './matrices.js';
import { control, runKernels } from './run.js';

/** Of values of size 1 to 10, and sums of a few dozen of them in float32, with WGSL's exp, which is exact to 3 + 2·|x| units of the last place. */
const NEAR = 2e-5;

function expectAll(got: ArrayLike<number>, want: readonly number[], name: string): void {
  const bounds = Float64Array.from(want, (value) => NEAR * Math.max(1, Math.abs(value)));
  expectWithin(got, { values: Float64Array.from(want), bounds }, name);
}

function specOf(draw: Draw, seed: number): RecurrenceSpec {
  const groups = draw.whole(1, 3);
  const drawn = {
    ...{ heads: groups * draw.whole(1, 3), headDim: draw.whole(1, 20), groups, stateSize: draw.whole(1, 40) },
    ...{ taps: draw.whole(1, 5), convolutionBias: draw.flag(), limit: draw.of([[0, Infinity], [0.4, 1.5]] as const) }, // prettier-ignore
  };
  const fixed: Partial<RecurrenceSpec>[] = [
    { headDim: 64, stateSize: 128 },
    { headDim: 3, stateSize: 8, groups: 1 },
  ];
  return { ...drawn, ...fixed[seed] };
}

onWebGpu('WGSL recurrence', (device) => {
  for (let seed = 0; seed < 16; seed++) {
    const draw = new Draw(1000 * seed + 7);
    const spec = specOf(draw, seed);
    const { heads, headDim, groups, stateSize, taps, limit, convolutionBias } = spec;
    const { inner, channels } = widths(spec);
    // rows of a batch, of which one in four is switched off
    const batch = seed % 3 === 1 ? draw.whole(2, 5) : 1;
    const moving = (b: number): number => Number((seed + b) % 4 !== 3);
    it(`${JSON.stringify(spec)}, ${batch} rows${moving(0) ? '' : ', switched off'}`, async () => {
      const [projected, context] = [inner + channels + heads, Math.max(1, (taps - 1) * channels)];
      const all = {
        ...{ projected: draw.numbers(batch * projected, 2), context: draw.numbers(batch * context) },
        ...{ taps: draw.numbers(channels * taps), bias: draw.numbers(channels), heads: draw.numbers(3 * heads) },
        state: draw.numbers(batch * inner * stateSize),
      };
      const given = {
        ...all,
        ...{
          convolved: new Float32Array(batch * channels).fill(NaN),
          gated: new Float32Array(batch * inner).fill(NaN),
        },
        control: Uint32Array.from(Array.from({ length: batch }, (_, b) => [...control({ moves: moving(b) })]).flat()),
      };
      const tiling = seed % 2 ? recurrenceTiling(spec) : { rows: draw.of([1, 3, 8]), width: draw.of([8, 16]) };
      const kernels = [convolutionKernel(spec, batch), recurrenceKernel(spec, batch, tiling)];
      const after_ = await runKernels(device(), kernels, given, ['convolved', 'context', 'state', 'gated']);
      for (let b = 0; b < batch; b++) expectRow(b);

      function expectRow(b: number): void {
        const of = (values: Float32Array): Float32Array => {
          const size = values.length / batch;
          return values.subarray(b * size, (b + 1) * size);
        };
        const moves = moving(b);
        const y = of(all.projected);
        const own = { ...all, context: of(all.context), state: of(all.state) };
        const got = { convolved: of(after_.convolved), context: of(after_.context), state: of(after_.state), gated: of(after_.gated) }; // prettier-ignore

        const after = epilogueReference(
          { first: inner, channels, taps, heads, bias: convolutionBias, limit },
          {
            ...{ y, context: own.context, place: 0, taps: own.taps, bias: own.bias },
            ...{ dtBias: own.heads.subarray(0, heads), ALog: own.heads.subarray(heads, 2 * heads) },
          },
        );
        expectAll(got.convolved, after.xBC, 'convolved');
        const moved = [...own.context.subarray(channels), ...y.subarray(inner, inner + channels)];
        if (taps > 1) expect([...got.context]).to.deep.equal(moves ? moved : [...own.context]);
        const step = [...after.xBC, ...after.dt, ...after.decay];
        const { next, v } = ssmStepReference(
          {
            ...{ rows: 1, heads, headDim, groups, stateSize, dtype: 'float32', norm: null },
            step: { stride: step.length, offset: 0 },
            gate: { stride: inner, offset: 0, activated: true },
          },
          { state: own.state, step, gate: after.z, D: own.heads.subarray(2 * heads) },
        );
        expectAll(got.state, moves ? next : [...own.state], 'state');
        expectAll(got.gated, v, 'gated');
      }
    });
  }

  for (let seed = 0; seed < 10; seed++) {
    const draw = new Draw(1000 * seed + 11);
    const spec = { ...specOf(draw, seed), taps: draw.whole(2, 5) };
    const { heads, headDim, groups, stateSize, taps, limit, convolutionBias } = spec;
    const { inner, channels } = widths(spec);
    const [hidden, normGroups] = [draw.of([768, 8 * draw.whole(1, 9), draw.whole(1, 70)]), draw.of([1, groups])];
    it(`a layer of ${hidden} channels, ${JSON.stringify(spec)}`, async () => {
      const { width } = widths(spec);
      const [first, second] = [
        matrixOf(draw, { kind: draw.of(['float32', 'bfloat16'] as const) }, width, hidden),
        matrixOf(draw, { kind: draw.of(['float32', 'bfloat16'] as const) }, hidden, inner),
      ];
      const own = {
        ...{
          x: draw.numbers(hidden, 2),
          state: draw.numbers(inner * stateSize),
          context: draw.numbers((taps - 1) * channels),
        },
        ...{ gamma: draw.numbers(hidden), taps: draw.numbers(channels * taps), bias: draw.numbers(channels) },
        ...{
          dtBias: draw.numbers(heads, 4),
          aLog: draw.numbers(heads),
          d: draw.numbers(heads),
          normGamma: draw.numbers(inner),
        },
      };
      const call: LayerStepCall = {
        ...{
          rows: 1,
          hidden,
          heads,
          headDim,
          groups,
          stateSize,
          taps,
          normGroups,
          contextRow: own.context.length,
          place: 0,
        },
        ...{ epsilon: 1e-5, low: limit[0], high: limit[1], hasMask: false, hasBias: convolutionBias, bf16State: false },
        ...{ inInt4: false, inBf16: false, inGroup: 0, outInt4: false, outBf16: false, outGroup: 0, rounded: false },
      };
      const wanted = layerStepReference(call, {
        ...own,
        ...{ inMatrix: Float32Array.from(first.weights), outMatrix: Float32Array.from(second.weights) },
      });
      const plain = { first: 0, batch: 1, bias: false, guarded: false };
      const product = (
        inner_: number,
        out: number,
        format: typeof first.format,
        groups_: number,
        accumulate: boolean,
      ) =>
        productKernel({ ...plain, inner: inner_, out, width: out, format, norm: { groups: groups_, epsilon: 1e-5 }, accumulate }); // prettier-ignore
      const renamed = (kernel: ReturnType<typeof productKernel>, names: Record<string, string>) => ({
        ...kernel,
        bindings: kernel.bindings.map((name) => names[name] ?? name),
      });
      const kernels = [
        renamed(product(hidden, width, first.format, 1, false), { matrix: 'inMatrix', y: 'projected' }),
        convolutionKernel(spec),
        recurrenceKernel(spec),
        renamed(product(inner, hidden, second.format, normGroups, true), {
          ...{ matrix: 'outMatrix', x: 'gated', gamma: 'normGamma', y: 'x' },
        }),
      ];
      const given = {
        ...own,
        ...{ inMatrix: first.values, outMatrix: second.values, control: control() },
        ...{
          projected: new Float32Array(width),
          convolved: new Float32Array(channels),
          gated: new Float32Array(inner),
        },
        heads: Float32Array.of(...own.dtBias, ...own.aLog, ...own.d),
      };
      const got = await runKernels(device(), kernels, given, ['x', 'state', 'context']);
      expectWithin(got.state, wanted.state, 'state');
      expectWithin(got.context, wanted.context, 'context');
      expectWithin(got.x, wanted.y, 'y');
    });
  }
});
