/** The layer's step of CPUs, of random sizes, against its reference in plain loops. */
import { expect } from 'chai';
import type * as tf from '@tensorflow/tfjs';
import { Program, type VariableSpec } from '../../../src/jit/index.js';
import { layerInstructions, TILE } from '../../../src/kernels/index.js';
import {
  type HostMatrix,
  LAYER_INSTRUCTIONS,
  type LayerInstructions,
  layerStepBy,
} from '../../../src/kernels/host/layer.js';
import { type LayerStepBounded, layerStepReference } from '../../../src/kernels/host/layer_reference.js';
import type { LayerStepCall } from '../../../src/kernels/host/spec.js';
import { useBackend } from '../../support/backends.js';
import { asBfloat16, Draw, expectTogether, expectWithin } from './cases.js';

/** `rounding`: bfloat16 that rounds what it meets. */
type Form = 'float32' | 'bfloat16' | 'rounding' | 'int4';

const isBf16 = (form: Form): boolean => form === 'bfloat16' || form === 'rounding';

interface Sizes {
  rows: number;
  hidden: number;
  heads: number;
  headDim: number;
  groups: number;
  stateSize: number;
  taps: number;
  layers: number;
}

interface Case {
  name: string;
  call: LayerStepCall;
  sizes: Sizes;
  layer: number;
  operands: Record<string, Float32Array | Uint8Array>;
  forms: Record<'in' | 'out', Form>;
}

/** Sizes that divide badly, and random ones; int4 asks for whole groups. */
function sizesOf(seed: number, draw: Draw, forms: Case['forms']): Sizes {
  const groups = draw.whole(1, 3);
  const [hidden, headDim] = [draw.whole(1, 90), draw.whole(1, 20)];
  const drawn: Sizes = {
    ...{ rows: draw.of([1, 1, 2, 3, 9]), hidden, heads: groups * draw.whole(1, 3), headDim, groups },
    ...{ stateSize: draw.whole(1, 40), taps: draw.whole(2, 5), layers: draw.whole(1, 3) },
  };
  const fixed: Partial<Sizes>[] = [{ hidden: 1000, heads: 24, headDim: 8, groups: 1, stateSize: 128, taps: 4 }];
  const sizes = { ...drawn, ...fixed[seed] };
  if (forms.in === 'int4') sizes.hidden = 32 * Math.ceil(sizes.hidden / 32);
  if (forms.out === 'int4') sizes.headDim = 32;
  return sizes;
}

function matrixOf(draw: Draw, form: Form, name: string, out: number, inner: number): Case['operands'] {
  if (form === 'float32') return { [`${name}Matrix`]: draw.numbers(out * inner, 0.3) };
  if (form !== 'int4') return { [`${name}Matrix`]: draw.levels(out * inner, 0.3) };
  const { codes, scale, zero } = draw.codes(out, inner, 32);
  return { [`${name}Matrix`]: codes, [`${name}Scale`]: scale, [`${name}Zero`]: zero };
}

function caseOf(seed: number, rounded: boolean): Case {
  const draw = new Draw(1000 * seed + 29);
  const all = ['float32', 'bfloat16', 'int4'] as const;
  const forms = { in: draw.of(all), out: draw.of(all) } as Case['forms'];
  if (rounded) {
    forms[draw.of(['in', 'out'] as const)] = 'rounding';
    // the call says it of both
    for (const name of ['in', 'out'] as const) if (forms[name] === 'bfloat16') forms[name] = 'rounding';
  }
  const sizes = sizesOf(seed, draw, forms);
  const { rows, hidden, heads, headDim, groups, stateSize, taps, layers } = sizes;
  const inner = heads * headDim;
  const channels = inner + 2 * groups * stateSize;
  const [hasMask, hasBias, bf16State, layer] = [draw.flag(), draw.flag(), draw.flag(), draw.whole(0, layers - 1)];
  const place = layer * (taps - 1) * channels;
  const [low, high] = draw.of([
    [0, Infinity],
    [0.4, 1.5],
  ] as const);
  const call: LayerStepCall = {
    ...{ rows, hidden, heads, headDim, groups, stateSize, taps, normGroups: draw.of([1, groups]) },
    ...{ contextRow: layers * (taps - 1) * channels, place, epsilon: 1e-5, low, high, hasMask, hasBias, bf16State },
    ...{ inInt4: forms.in === 'int4', inBf16: isBf16(forms.in), inGroup: forms.in === 'int4' ? 32 : 0 },
    ...{ outInt4: forms.out === 'int4', outBf16: isBf16(forms.out), outGroup: forms.out === 'int4' ? 32 : 0 },
    rounded,
  };
  const state = rows * heads * headDim * stateSize;
  const operands = {
    x: draw.numbers(rows * hidden, 2),
    state: bf16State ? draw.levels(state, 1) : draw.numbers(state),
    context: draw.numbers(rows * call.contextRow),
    ...(hasMask && { mask: Float32Array.from({ length: rows }, () => Number(draw.flag())) }),
    gamma: draw.numbers(hidden),
    ...matrixOf(draw, forms.in, 'in', 2 * inner + 2 * groups * stateSize + heads, hidden),
    taps: draw.numbers(channels * taps),
    ...(hasBias && { bias: draw.numbers(channels) }),
    dtBias: draw.numbers(heads, 4),
    aLog: draw.numbers(heads),
    d: draw.numbers(heads),
    normGamma: draw.numbers(inner),
    ...matrixOf(draw, forms.out, 'out', hidden, inner),
  };
  const name = `${JSON.stringify(sizes)}, ${forms.in} and ${forms.out}${hasMask ? ', a mask' : ''}${bf16State ? ', a bfloat16 state' : ''}`;
  return { name, call, sizes, layer, operands, forms };
}

/** Matrices and what is moved on are variables of the program, all else inputs. */
function defineCase(
  program: Program,
  { call, sizes, layer, operands, forms }: Case,
  i: number,
  by: LayerInstructions,
): void {
  const { rows, hidden, heads, headDim, groups, stateSize, taps, layers } = sizes;
  const inner = heads * headDim;
  const channels = inner + 2 * groups * stateSize;
  const declare = (name: string, spec: Omit<VariableSpec, 'init'>, values = operands[name] as Float32Array): void =>
    program.variable(`${name}${i}`, {
      ...spec,
      init: () => (spec.dtype === 'bfloat16' ? asBfloat16(values) : values),
    });
  const shapes = { in: [2 * inner + 2 * groups * stateSize + heads, hidden], out: [hidden, inner] } as const;
  for (const name of ['in', 'out'] as const) {
    const [out, k] = shapes[name];
    const form = forms[name];
    if (form !== 'int4') declare(`${name}Matrix`, { shape: [out, k], dtype: isBf16(form) ? 'bfloat16' : 'float32' });
    else {
      const tiles = Math.ceil(out / TILE);
      program.variable(`${name}Matrix${i}`, {
        ...{ shape: [tiles, k / 32, 4, TILE, 4], dtype: 'uint8' },
        init: () => operands[`${name}Matrix`]!,
      });
      for (const level of [`${name}Scale`, `${name}Zero`])
        declare(level, { shape: [tiles, k / 32, TILE], dtype: 'float32' });
    }
  }
  declare('state', { shape: [rows, heads, headDim, stateSize], dtype: call.bf16State ? 'bfloat16' : 'float32' });
  declare('context', { shape: [rows, layers, taps - 1, channels], dtype: 'float32' });
  const names = Object.keys(operands).filter((name) => !/Matrix|Scale|Zero|state|context/.test(name));
  const inputs = Object.fromEntries(
    names.map((name) => [
      name,
      { shape: name === 'x' ? [rows, hidden] : [operands[name]!.length], dtype: 'float32' as const },
    ]),
  );
  program.define(`case${i}`, inputs, (t, vars) => {
    const matrix = (name: 'in' | 'out'): HostMatrix => {
      const [out, k] = shapes[name];
      const own = vars[`${name}Matrix${i}`]!;
      if (forms[name] === 'rounding') return { rounding: own };
      if (forms[name] !== 'int4') return own;
      const [scale, zero] = [vars[`${name}Scale${i}`]!, vars[`${name}Zero${i}`]!];
      return { out, inner: k, groupSize: 32, bf16Levels: false, codes: own, scale, zero };
    };
    const result = layerStepBy(by, {
      ...{ heads, headDim, groups, stateSize, normGroups: call.normGroups, epsilon: call.epsilon },
      limit: [call.low, call.high],
      ...{ x: t['x']!, state: vars[`state${i}`]!, mask: t['mask'], gamma: t['gamma']! },
      context: { layers: vars[`context${i}`] as tf.Tensor4D, layer },
      ...{ inProj: matrix('in'), taps: t['taps']!, bias: t['bias'], dtBias: t['dtBias']!, aLog: t['aLog']! },
      ...{ d: t['d']!, normGamma: t['normGamma']!, outProj: matrix('out') },
    });
    return { outputs: { y: result.y }, assign: { [`state${i}`]: result.state, [`context${i}`]: result.contexts } };
  });
}

describe('a step of a layer on a CPU', () => {
  before(() => useBackend('tensorflow'));

  const forms = LAYER_INSTRUCTIONS.flatMap((name) => [false, true].map((rounded) => [name, rounded] as const));
  for (const [instructions, rounded] of forms)
    it(`${instructions}${rounded ? ', rounding' : ''}: is as far from its reference as float32 may be`, async function () {
      if (!layerInstructions().includes(instructions)) this.skip();
      const cases = Array.from({ length: 30 }, (_, seed) => caseOf(seed, rounded));
      const program = new Program();
      cases.forEach((one, i) => defineCase(program, one, i, instructions));
      await program.compile();
      for (const [i, { name, call, operands }] of cases.entries()) {
        const want: LayerStepBounded = layerStepReference(call, operands);
        const inputs = Object.keys(operands).filter((key) => !/Matrix|Scale|Zero|state|context/.test(key));
        const { y } = program.callSync(
          `case${i}`,
          Object.fromEntries(inputs.map((key) => [key, operands[key] as Float32Array])),
        );
        const moves = (r: number): boolean => !call.hasMask || operands['mask']![r] !== 0;
        const rowsThatMove = Array.from({ length: call.rows }, (_, r) => r).filter(moves);
        const some = (values: ArrayLike<number>): number[] =>
          rowsThatMove.flatMap((r) => Array.from(values).slice(r * call.hidden, (r + 1) * call.hidden));
        const wanted = {
          values: Float64Array.from(some(want.y.values)),
          bounds: Float64Array.from(some(want.y.bounds)),
        };
        // bounds of what goes through two products and more are wide: an input near the middle of two codes, or of two
        // numbers of bfloat16, may be rounded either way
        const int4 = call.inInt4 || call.outInt4 || rounded ? 2e-3 : 2e-6;
        const check = (got: ArrayLike<number>, what: LayerStepBounded['y'], most: number, of: string): void => {
          expectWithin(got, what, `${name}: ${of}`);
          expectTogether(got, what, most, `${name}: ${of}`);
        };
        if (rowsThatMove.length > 0) check(some(y as Float32Array), wanted, int4, 'y');
        expect(Array.from(y as Float32Array).every(Number.isFinite), name).to.equal(true);
        const state = program.read(`state${i}`) as Float32Array;
        check(state, want.state, call.bf16State ? 3e-3 : int4, 'state'); // half of the last bit of bfloat16, 2⁻⁸
        check(program.read(`context${i}`) as Float32Array, want.context, int4, 'context');
      }
      program.dispose();
    });
});
