import { expect } from 'chai';
import {
  COUNTERS,
  LAYER_OUTPUTS,
  layerFits,
  layerInputs,
  layerKernel,
  type LayerSpec,
  layerTiling,
  type LayerTiling,
  productsOf,
  projectedSize,
} from '../../src/jit/layer_ptx.js';
import { runPtx } from '../support/ptx.js';
import { rowProductCase } from '../support/row_products.js';
import type { Memory } from '../support/ttir.js';

const bfloat16 = { kind: 'bfloat16' } as const;
const codes = { kind: 'codes', groupSize: 128, levels: 'bfloat16' } as const;
const small: LayerSpec = {
  width: 256,
  heads: 8,
  headDim: 32,
  groups: 2,
  stateSize: 128,
  stateType: 'float32',
  normGroups: 1,
  epsilon: 1e-5,
  taps: 4,
  bias: true,
  limit: [0, Infinity],
  first: bfloat16,
  second: bfloat16,
  masked: false,
  follow: false,
};

const root = (values: ArrayLike<number>): number =>
  Math.sqrt(Array.from(values).reduce((sum, v) => sum + v * v, 0) / values.length);

/** The kernel's memory, and what plain loops in float64 make of it. */
function layerCase(spec: LayerSpec, mask = 1) {
  const { heads: h, headDim: p, groups: g, stateSize: n } = spec;
  const { first, second } = productsOf(spec);
  const inner = h * p;
  const numbers = (size: number, seed: number): Float32Array =>
    Float32Array.from({ length: size }, (_, i) => Math.sin(1 + 2.3 * i + 11 * seed));
  const into = rowProductCase(first);
  const D = numbers(h, 1);
  const state = numbers(inner * n, 2);
  const at = (index: number): number => into.want[first.out + index]!; // behind what is projected: xBC | dt | decays
  const channels = inner + 2 * g * n;
  const next = Array.from(state);
  const gated = Array.from({ length: inner }, (_, row) => {
    const head = Math.floor(row / p);
    const group = Math.floor((head * g) / h);
    let y = D[head]! * at(row);
    for (let i = 0; i < n; i++) {
      const place = row * n + i;
      const added = at(row) * at(channels + head) * at(inner + group * n + i);
      const value = state[place]! * at(channels + h + head) + added;
      if (mask > 0) next[place] = value;
      y += value * at(inner + g * n + group * n + i);
    }
    return y * into.want[row]!;
  });
  const x = into.memory[0] as Float32Array;
  const out = rowProductCase(second, { x: Float32Array.from(gated), residual: x.slice(0, spec.width) });
  const given: Record<string, Memory[number]> = { mask: Float32Array.of(mask), D, state };
  // both keep the order of their parameters, the result last
  const names = layerInputs(spec).map(([name]) => name);
  into.memory.slice(0, -1).forEach((buffer, i) => (given[names[i]!] = buffer));
  const behind = names.filter((name) => name.startsWith('second.'));
  behind.forEach((name, i) => (given[name] = out.memory[1 + i]!));
  const after = names.filter((name) => name.startsWith('follow.'));
  for (const name of after) given[name] = given[name.slice('follow.'.length)]!;
  const counters = new Int32Array(COUNTERS[0]);
  given['counters'] = counters;
  const contexts = given['context'] as Float32Array;
  const moved = Array.from(contexts);
  const [begin] = given['place'] as Int32Array;
  const old = (spec.taps - 1) * channels;
  if (mask > 0)
    moved.splice(
      begin!,
      old,
      ...moved.slice(begin! + channels, begin! + old),
      ...into.want.slice(inner, inner + channels),
    );
  const projected = [...into.want];
  if (!mask) projected.fill(0, first.out + channels, first.out + channels + h); // no step
  const results: Record<(typeof LAYER_OUTPUTS)[number], Memory[number]> = {
    y: out.y,
    projected: into.y,
    gated: new Float32Array(inner).fill(NaN),
    moved: contexts,
    next: state,
    counted: counters,
  };
  const memory = [...names.map((name) => given[name]!), ...LAYER_OUTPUTS.map((name) => results[name])];
  return { memory, results, want: { y: out.want, projected, gated, moved, next }, counters };
}

const tilingOf = (
  change: Partial<LayerTiling> & { blocks?: number; warps?: number; parts?: number } = {},
): LayerTiling => {
  const { blocks = 5, warps = 8, parts = 1, pieces = 2, rows = 2, fetch = 32, all = true } = change;
  const { later = 1, hold = false, follow = 2 } = change;
  return {
    first: { blocks, warps, parts },
    second: { blocks, warps, parts },
    pieces,
    rows,
    fetch,
    all,
    later,
    hold,
    follow,
  };
};

function check(spec: LayerSpec, tiling = tilingOf(), mask = 1, backwards = false): void {
  const { memory, results, want, counters } = layerCase(spec, mask);
  runPtx(layerKernel(spec, tiling), memory, backwards);
  // before codes, a channel is rounded to half of 1/32512 of the largest of its group
  const tolerance = spec.first.kind === 'codes' ? 1e-3 : 1e-5;
  for (const [name, values] of Object.entries(want)) {
    if (!mask && (name === 'y' || name === 'gated')) continue; // of no meaning
    const got = results[name as keyof typeof want] as Float32Array;
    expect(got.length, name).to.equal(values.length);
    const scale = root(values);
    const wrong = values.flatMap((value, i) =>
      Math.abs(got[i]! - value) <= tolerance * (scale + Math.abs(value))
        ? []
        : [`${name} ${i}: ${got[i]}, not ${value}`],
    );
    expect(wrong.slice(0, 5)).to.deep.equal([]);
  }
  expect(counters[0]).to.equal(0);
}

describe('a layer as one kernel', () => {
  const cases: Record<string, Partial<LayerSpec>> = {
    'matrices in bfloat16': {},
    'one group, a width of several pieces': { groups: 1, width: 768 },
    'a norm by groups, no bias, limits': { heads: 16, normGroups: 2, bias: false, taps: 2, limit: [0.001, 0.1] },
    'a mask': { masked: true },
    codes: { first: codes, second: codes },
    'a layer that follows': { follow: true },
    'a layer of codes that follows': { first: codes, second: codes, follow: true },
  };
  for (const [name, change] of Object.entries(cases))
    it(`is the same as in plain loops: ${name}`, () => check({ ...small, ...change }, tilingOf({ warps: 16 })));

  it('does not depend on how it is shared out', () => {
    const tilings: Parameters<typeof tilingOf>[0][] = [
      { blocks: 4, warps: 16 },
      { blocks: 17, warps: 4, pieces: 4 },
      { blocks: 9, pieces: 1, fetch: 128, all: false, rows: 1 },
      { blocks: 9, parts: 2, hold: true },
    ];
    for (const tiling of tilings) check({ ...small, width: 512, heads: 16 }, tilingOf(tiling), 1, true);
    check({ ...small, first: codes, second: codes, width: 512 }, tilingOf({ parts: 2, blocks: 24, warps: 2 }));
  });

  it('leaves the state as it is where the mask is 0', () => check({ ...small, masked: true }, tilingOf(), 0));

  it('fits all public sizes on cards of 46 to 144 multiprocessors', () => {
    for (const blocks of [46, 108, 132, 144])
      for (const format of [bfloat16, codes])
        for (const [width, groups] of [
          [768, 1],
          [1024, 1],
          [1536, 1],
          [2048, 1],
          [2560, 1],
          [4096, 8],
        ] as const) {
          const sizes = { width, heads: width / 32, headDim: 64, groups, normGroups: groups };
          const spec = { ...small, ...sizes, first: format, second: format };
          const rows = Math.ceil((2 * (2 * width + groups * 128) + 2 * width + width / 32) / blocks);
          if (rows <= 512) expect(layerFits(spec, layerTiling(spec, blocks)), `${width}, ${blocks}`).to.equal(true);
        }
  });

  it('says where there is no kernel', () => {
    const fits = (change: Partial<LayerSpec>): boolean => layerFits({ ...small, ...change }, tilingOf());
    expect(fits({})).to.equal(true);
    expect(fits({ first: { kind: 'float32' } }), 'float32').to.equal(false);
    expect(fits({ stateSize: 96 }), 'a state that no warp takes').to.equal(false);
    expect(fits({ headDim: 31, heads: 512 }), 'rows of two heads in a warp').to.equal(false);
    expect(projectedSize(small)).to.equal(256 + 768 + 8 + 768 + 16);
  });
});
