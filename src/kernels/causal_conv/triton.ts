/**
 * The causal convolution of many tokens on a GPU, and its gradients, as Triton kernels of our own: each reads its inputs where they lie,
 * in bfloat16, and from memory once. (XLA's kernels work out padding for every element, and read what they shift once a tap.)
 */
import { ArgumentError } from '../../base/errors.js';
import { type TritonKernel, TritonWriter, type TtirValue } from '../../jit/custom_call/triton.js';
import type { Dtype } from '../../jit/types.js';
import { convolutionFits, type ConvolutionSpec, TILE, TILES } from './spec.js';

const WARPS = 4;
/** Channels of a program, and of one that adds up products. */
const BLOCK = 256;
const SUM_BLOCK = 64;

/** Where a program's elements are: a tile of tokens of one row by a block of channels. */
class Tile {
  readonly programs: number;
  /** Programs along the tokens of a row. */
  readonly spans: number;
  readonly block: number;
  /** Row, [], first token of the program, [], and channels, [1, block]. */
  readonly row: TtirValue;
  readonly start: TtirValue;
  readonly channel: TtirValue;
  readonly tokens: TtirValue; // [TILE, 1]

  /** @param span tokens of a program @param most channels of a program */
  constructor(
    readonly k: TritonWriter,
    readonly spec: ConvolutionSpec,
    span: number,
    most: number,
  ) {
    const { b, t, channels } = spec;
    this.block = Math.min(channels & -channels, most);
    const blocks = channels / this.block;
    this.spans = Math.ceil(t / span);
    this.programs = b * this.spans * blocks;
    const program = k.program();
    const line = k.binary('arith.divsi', program, blocks);
    const column = k.binary('arith.subi', program, this.times(line, blocks));
    this.row = k.binary('arith.divsi', line, this.spans);
    this.start = this.times(k.binary('arith.subi', line, this.times(this.row, this.spans)), span);
    this.channel = k.binary('arith.addi', k.range(this.block, 1, 2), this.times(column, this.block));
    this.tokens = k.range(TILE, 0, 2);
  }

  times(x: TtirValue, by: number): TtirValue {
    return this.k.binary('arith.muli', x, by);
  }

  plus(x: TtirValue, y: TtirValue | number): TtirValue {
    return y === 0 ? x : this.k.binary('arith.addi', x, y);
  }

  /** Tokens of the program's tile `number`, [TILE, 1]. */
  at(number: number): TtirValue {
    return this.plus(this.plus(this.tokens, this.start), number * TILE);
  }

  /** Offsets of these tokens' channels in rows of `width`, the first of which is `first`. */
  places(token: TtirValue, width: number, first: number): TtirValue {
    const line = this.plus(token, this.times(this.row, this.spec.t));
    return this.plus(this.plus(this.channel, first), this.times(line, width));
  }

  /** Float32 values of tokens that may lie before the first, or after the last, where they are 0. */
  load(from: TtirValue, token: TtirValue, width: number, first: number, inside: TtirValue | null): TtirValue {
    const { k } = this;
    const at = this.places(token, width, first);
    const value = k.convert('arith.extf', k.load(from, at, inside ?? undefined), 'f32');
    if (!inside) return value;
    return k.select(inside, value, k.broadcast(k.constant(0, 'f32'), value.dims));
  }

  /** Where tokens exist: not before the first if some may be, nor after the last; null where all do. */
  inside(token: TtirValue, before: boolean, after: boolean): TtirValue | null {
    const { k } = this;
    const low = before ? k.compare('arith.cmpi sge', token, 0) : null;
    const high = after ? k.compare('arith.cmpi slt', token, this.spec.t) : null;
    return low && high ? k.binary('arith.andi', low, high) : (low ?? high);
  }

  /** Whether the last program of a row reaches beyond its tokens. */
  ragged(span: number): boolean {
    return this.spec.t % span !== 0;
  }

  /** A tap's weights, of [k, d], as [1, block]. */
  tap(weights: TtirValue, i: number): TtirValue {
    return this.k.load(weights, this.plus(this.channel, i * this.spec.channels));
  }

  store(to: TtirValue, token: TtirValue, value: TtirValue, inside: TtirValue | null): void {
    const { k } = this;
    const at = this.places(token, this.spec.channels, 0);
    const mask = inside ? k.broadcast(inside, at.dims) : undefined;
    k.store(to, at, k.convert('arith.truncf', k.broadcast(value, at.dims), 'bf16'), mask);
  }
}

function check(spec: ConvolutionSpec): void {
  if (!convolutionFits(spec)) throw new ArgumentError('convolution: no kernel for these sizes', { spec });
}

/** y = bias + Σ weight·x, over rows that hold x, weights, [k, d], bias and context where there are any, and y, [b, t, d]. */
export function convolutionKernel(spec: ConvolutionSpec): TritonKernel {
  check(spec);
  const { taps, width, first, bias, context } = spec;
  const optional: Dtype[] = [bias, context].filter(Boolean).map(() => 'float32');
  const k = new TritonWriter('causal_convolution', ['bfloat16', 'float32', ...optional, 'bfloat16']);
  const [x, weights, ...rest] = k.parameters as [TtirValue, TtirValue, ...TtirValue[]];
  const [biases, before] = [bias ? rest[0]! : null, context ? rest[bias ? 1 : 0]! : null];
  const tile = new Tile(k, spec, TILE, BLOCK);
  const token = tile.at(0);
  const ragged = tile.ragged(TILE);
  /** @param begins tokens may lie before the first */
  const write = (begins: boolean): void => {
    const terms = Array.from({ length: taps }, (_, i) => {
      const back = taps - 1 - i;
      const early = begins && back > 0;
      const source = tile.plus(token, -back);
      let value = tile.load(x, source, width, first, tile.inside(source, early, ragged));
      if (before && early) {
        const outside = k.compare('arith.cmpi slt', source, 0);
        const line = tile.plus(tile.plus(source, taps - 1), tile.times(tile.row, taps - 1)); // of [b·(k-1)]
        const at = tile.plus(tile.channel, tile.times(line, spec.channels));
        value = k.select(outside, k.load(before, at, outside), value);
      }
      return k.binary('arith.mulf', value, tile.tap(weights, i));
    });
    if (biases) terms.push(k.load(biases, tile.channel));
    const sum = terms.reduce((a, b) => k.binary('arith.addf', a, b));
    tile.store(rest[rest.length - 1]!, token, sum, tile.inside(token, false, ragged));
  };
  k.when(
    k.compare('arith.cmpi slt', tile.start, 1),
    () => write(true),
    () => write(false),
  );
  return k.kernel({ grid: tile.programs, warps: WARPS });
}

/** The gradient of x, [b, t, d], from that of y, [b, t, d], and weights, [k, d]. */
export function convolutionInputGradient(spec: ConvolutionSpec): TritonKernel {
  check(spec);
  const { taps, channels } = spec;
  const k = new TritonWriter('causal_convolution_dx', ['bfloat16', 'float32', 'bfloat16']);
  const [dy, weights, dx] = k.parameters as [TtirValue, TtirValue, TtirValue];
  const tile = new Tile(k, spec, TILE, BLOCK);
  const token = tile.at(0);
  const ragged = tile.ragged(TILE);
  let sum: TtirValue | null = null;
  for (let i = 0; i < taps; i++) {
    const ahead = taps - 1 - i;
    const source = tile.plus(token, ahead);
    const value = tile.load(dy, source, channels, 0, tile.inside(source, false, ahead > 0 || ragged));
    const term = k.binary('arith.mulf', value, tile.tap(weights, i));
    sum = sum ? k.binary('arith.addf', sum, term) : term;
  }
  tile.store(dx, token, sum!, tile.inside(token, false, ragged));
  return k.kernel({ grid: tile.programs, warps: WARPS });
}

/** Parts of the gradients of weights and bias, [programs of a channel, k+1, d], whose sums they are, from x and the gradient of y. */
export function convolutionWeightGradient(spec: ConvolutionSpec): TritonKernel {
  check(spec);
  const { taps, width, first, channels } = spec;
  const k = new TritonWriter('causal_convolution_dw', ['bfloat16', 'bfloat16', 'float32']);
  const [x, dy, parts] = k.parameters as [TtirValue, TtirValue, TtirValue];
  const span = TILE * TILES;
  const tile = new Tile(k, spec, span, SUM_BLOCK);
  const ragged = tile.ragged(span);
  const sums: (TtirValue | null)[] = Array.from({ length: taps + 1 }, () => null);
  const add = (i: number, value: TtirValue): void => {
    const sum = sums[i];
    sums[i] = sum ? k.binary('arith.addf', sum, value) : value;
  };
  for (let number = 0; number < TILES; number++) {
    const token = tile.at(number);
    const given = tile.load(dy, token, channels, 0, tile.inside(token, false, ragged));
    add(taps, given);
    for (let i = 0; i < taps; i++) {
      const back = taps - 1 - i;
      const source = tile.plus(token, -back);
      const read = tile.load(x, source, width, first, tile.inside(source, number === 0 && back > 0, ragged));
      add(i, k.binary('arith.mulf', read, given));
    }
  }
  const part = tile.plus(k.binary('arith.divsi', tile.start, span), tile.times(tile.row, tile.spans));
  sums.forEach((sum, i) => {
    const line = tile.plus(tile.times(part, taps + 1), i);
    const total = k.expand(k.sum(sum!, 0), 0); // [1, block]
    k.store(parts, tile.plus(tile.channel, tile.times(line, channels)), total);
  });
  return k.kernel({ grid: tile.programs, warps: WARPS });
}
