import { expect } from 'chai';
import type { Elementwise } from '../../../src/kernels/epilogue/elementwise.js';
import { Epilogue } from '../../../src/kernels/epilogue/epilogue.js';
import { epilogueReference } from '../../../src/kernels/epilogue/reference.js';
import type { EpilogueSpec } from '../../../src/kernels/epilogue/spec.js';

interface Place {
  parameter: string;
  at: number;
}

/** The interface over plain numbers, one element: a condition is 0 or 1. */
class Numbers implements Elementwise<number, Place> {
  constructor(private readonly memory: Record<string, Float64Array>) {}
  plus = (a: number, b: number): number => a + b;
  less = (a: number, b: number): number => Number(a < b);
  atLeast = (a: number, b: number): number => Number(a >= b);
  both = (a: number, b: number): number => a * b;
  place = (parameter: string, index: number, stride = 1): Place => ({ parameter, at: index * stride });
  shift = ({ parameter, at }: Place, index: number, stride = 1): Place => ({ parameter, at: at + index * stride });
  scalar = (parameter: string): number => this.memory[parameter]![0]!;
  load = ({ parameter, at }: Place, offset: number, where: number | null): number => {
    if (where === 0) return NaN;
    const value = this.memory[parameter]![at + offset];
    expect(value, `${parameter} at ${at + offset}`).to.be.a('number');
    return value!;
  };
  store = ({ parameter, at }: Place, offset: number, value: number, where: number | null): void => {
    if (where === 0) return;
    expect(this.memory[parameter]![at + offset], `${parameter} at ${at + offset} is written once`).to.be.NaN;
    this.memory[parameter]![at + offset] = value;
  };
  constant = (x: number): number => x;
  add = (a: number, b: number): number => a + b;
  multiply = (a: number, b: number): number => a * b;
  fma = (a: number, b: number, c: number): number => a * b + c;
  negate = (x: number): number => -x;
  atMost = (x: number, most: number): number => Math.min(x, most);
  noLess = (x: number, least: number): number => Math.max(x, least);
  exp = (x: number): number => Math.exp(x);
  silu = (x: number): number => x / (1 + Math.exp(-x));
  softplus = (x: number): number => Math.log1p(Math.exp(x));
  select = (condition: number, a: number, b: number): number => (condition ? a : b);
}

const numbers = (size: number, seed: number): Float64Array =>
  Float64Array.from({ length: size }, (_, i) => 2 * Math.sin(1 + i * 2.3 + seed * 11));

describe('the epilogue over plain numbers', () => {
  const base: EpilogueSpec = { first: 6, channels: 8, taps: 4, heads: 3, bias: true, limit: [0, Infinity] };
  const cases: Record<string, Partial<EpilogueSpec>> = {
    'as models have it': {},
    'no bias, bounds of step sizes': { bias: false, limit: [0.5, 1.5] },
    'one tap': { taps: 1 },
    'no gate': { first: 0 },
  };
  for (const [name, change] of Object.entries(cases))
    it(`is the reference, and reads nothing else: ${name}`, () => {
      const spec = { ...base, ...change };
      const { first, channels, taps, heads, bias } = spec;
      const out = first + channels + heads;
      const place = 2 * (taps - 1) * channels;
      const y = numbers(out, 1);
      const given = {
        context: numbers(place + (taps - 1) * channels, 2),
        taps: numbers(channels * taps, 3),
        bias: numbers(channels, 4),
        dtBias: numbers(heads, 5),
        ALog: numbers(heads, 6),
      };
      const memory: Record<string, Float64Array> = {
        ...{
          place: Float64Array.of(place),
          context: given.context,
          taps: given.taps,
          ...(bias && { bias: given.bias }),
        },
        ...{ dt_bias: given.dtBias, A_log: given.ALog },
        y: new Float64Array(out + channels + 2 * heads).fill(NaN),
      };
      for (let position = 0; position < out + 2; position++) {
        const e = new Numbers(memory);
        const epilogue = new Epilogue(e, spec, position, Number(position < out));
        const known = epilogue.known(epilogue.operands(), epilogue.context(epilogue.contextAt('context')));
        epilogue.storeBehind(y[position]!, epilogue.finish(y[position]!, known), out);
      }
      const want = epilogueReference(spec, { ...given, y, place });
      const all = [...want.z, ...y.slice(first), ...want.xBC, ...want.dt, ...want.decay];
      all.forEach((x, i) => expect(memory['y']![i], `y ${i}`).to.be.closeTo(x, 1e-12));
    });

  it('takes no step where a row is switched off', () => {
    const e = new Numbers({});
    const head = new Epilogue(e, base, base.first + base.channels, 1);
    const { value, decay } = head.finish(1, { older: 0, newest: 0, dtBias: 0, ALog: 0 }, 0);
    expect([value, decay]).to.deep.equal([0, 1]);
  });
});
