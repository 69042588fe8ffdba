/**
 * Decoding on a GPU is a product of every matrix with one vector, with small work around it, and each kernel costs about as much as
 * it takes to start it. Here a matrix, the norm and gate before it and the residual after it are one kernel, a Triton kernel of
 * our own: every program works the norm out anew and multiplies a few rows. Vectors stay float32 and are not rounded.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../errors/index.js';
import { type TritonKernel, TritonWriter, type TtirValue, runTriton, tritonRuns } from './triton.js';
import type { Dtype } from './types.js';

/** How the rows of a matrix [out, in] are stored. */
export type RowFormat =
  | { kind: 'float32' | 'bfloat16' }
  /**
   * Codes of four bits, w = code·scale + least by group of channels. Eight codes make a word; of a group's words, word i holds channel
   * p·groupSize/8 + i of the group in its bits 4p to 4p+3: so that channels of one position lie side by side, as the vector's do.
   */
  | { kind: 'codes'; groupSize: number };

export interface RowProductSpec {
  /** Rows and columns, [out, in]. */
  out: number;
  inner: number;
  format: RowFormat;
  /** Before all else, x += D·skipped: `heads` values of D for as many spans of x; skipped begins at `offset` of the buffer of the gate. */
  skip?: { heads: number; offset: number };
  /** x is multiplied by silu(gate) before the norm. */
  gated?: boolean;
  /** RMS norm before the product: groups of channels with a norm each, and the number added to the mean square. */
  norm?: { groups: number; epsilon: number };
  /** A vector is added after the product. */
  residual?: boolean;
  /** What follows the product y of an input projection z | x B C | dt: see Activations. */
  activations?: Activations;
}

/**
 * A step of the causal convolution with SiLU over channels y[first …], and step sizes of what comes after them: both written behind y, so
 * that the result is z | xBC | dt as projected, then xBC | dt as activated.
 */
export interface Activations {
  first: number;
  channels: number;
  taps: number;
  /** Step sizes, one per head. */
  heads: number;
  bias: boolean;
  /** Bounds of step sizes. */
  limit: readonly [number, number];
}

/** Sizes of the pieces that programs work in: a matter of speed only. */
export interface RowProductTiling {
  /** Rows that a program works on at a time. */
  rows: number;
  /** Most columns in a piece. */
  columns: number;
  warps: number;
  /** How often a program takes rows: it makes the vector ready once. */
  turns: number;
}

const powerOfTwo = (n: number): number => n & -n;

/** Columns of a piece: a power of two that divides a row and fits the groups of norm and codes. 0: there is none. */
function columnsOf(spec: RowProductSpec, most: number): number {
  const { inner, norm, format } = spec;
  const span = inner / (norm?.groups ?? 1);
  if (!Number.isInteger(span)) return 0;
  // whole groups of the norm in a piece, or whole pieces in a group
  const columns = Math.min(powerOfTwo(powerOfTwo(span) === span ? inner : span), most);
  if (format.kind !== 'codes') return columns >= 32 ? columns : 0;
  const { groupSize } = format;
  return powerOfTwo(groupSize) === groupSize && groupSize >= 32 && columns >= groupSize ? columns : 0;
}

/** Pieces that were fastest on an H100 for the sizes of mamba2-130m, mamba2-2.7b and Codestral Mamba (bench/cuda/README.md). */
export function rowTiling({ inner, format, gated, activations }: RowProductSpec): RowProductTiling {
  if (format.kind === 'codes') return { rows: 8, columns: 4096, warps: inner > 4096 ? 8 : 4, turns: 1 };
  // few long rows, and a vector that takes long to make ready
  if (gated)
    return inner < 4096
      ? { rows: 4, columns: 512, warps: 8, turns: 1 }
      : { rows: inner < 8192 ? 2 : 4, columns: 2048, warps: 8, turns: 4 };
  if (!activations) return { rows: 8, columns: 512, warps: 4, turns: 1 };
  if (inner < 4096) return { rows: inner <= 1024 ? 2 : 4, columns: 512, warps: 4, turns: 1 };
  return { rows: 8, columns: 1024, warps: 8, turns: 1 };
}

/** Most pieces of a row. They are written out, and of more the compiler makes code that spills, in minutes. */
const MOST_PIECES = { float32: 8, bfloat16: 8, codes: 3 };

/** Whether the kernel can be written for these sizes. */
export function rowProductFits(spec: RowProductSpec, tiling = rowTiling(spec)): boolean {
  const columns = columnsOf(spec, tiling.columns);
  return columns > 0 && spec.inner / columns <= MOST_PIECES[spec.format.kind] && spec.out * spec.inner < 2 ** 31;
}

/** A piece of the vector: before the weights of the norm and after. */
interface Piece {
  raw: TtirValue;
  scaled: TtirValue;
}

class RowProduct {
  private readonly k: TritonWriter;
  private readonly columns: number;
  private readonly pointers = new Map<string, TtirValue>();

  constructor(
    private readonly spec: RowProductSpec,
    private readonly tiling: RowProductTiling,
  ) {
    this.columns = columnsOf(spec, tiling.columns);
    const parameters = [...parametersOf(spec), ['y', 'float32'] as const];
    this.k = new TritonWriter(
      'row_product',
      parameters.map(([, dtype]) => dtype),
    );
    parameters.forEach(([name], i) => this.pointers.set(name, this.k.parameters[i]!));
  }

  private pointer(name: string): TtirValue {
    return this.pointers.get(name)!;
  }

  private add(a: TtirValue, b: TtirValue | number): TtirValue {
    return this.k.binary('arith.addf', a, b);
  }

  private multiply(a: TtirValue, b: TtirValue | number): TtirValue {
    return this.k.binary('arith.mulf', a, b);
  }

  private offset(a: TtirValue, b: TtirValue | number): TtirValue {
    return b === 0 ? a : this.k.binary('arith.addi', a, b);
  }

  private silu(x: TtirValue): TtirValue {
    return this.k.binary('arith.divf', x, this.add(this.k.unary('math.exp', this.multiply(x, -1)), 1));
  }

  /** Elements of the vector at offsets, before and after the weights of the norm, without its factor. */
  private piece(at: TtirValue): Piece {
    const { k } = this;
    const { skip, gated, norm, inner } = this.spec;
    let raw = k.load(this.pointer('x'), at);
    if (skip) {
      const d = k.load(this.pointer('skip'), k.binary('arith.divsi', at, inner / skip.heads));
      raw = this.add(raw, this.multiply(d, k.load(this.pointer('gate'), this.offset(at, skip.offset))));
    }
    if (gated) raw = this.multiply(raw, this.silu(k.load(this.pointer('gate'), at)));
    return { raw, scaled: norm ? this.multiply(raw, k.load(this.pointer('gamma'), at)) : raw };
  }

  private sumTo(x: TtirValue, rank: number): TtirValue {
    return x.dims.length <= rank ? x : this.sumTo(this.k.sum(x, x.dims.length - 1), rank);
  }

  /** 1 / sqrt(mean square + epsilon) from sums of squares. */
  private factor(squares: TtirValue): TtirValue {
    const { groups, epsilon } = this.spec.norm!;
    return this.k.unary('math.rsqrt', this.add(this.multiply(squares, groups / this.spec.inner), epsilon));
  }

  /**
   * The vector after its norm, by piece and, for codes, position in a word.
   * @param perPiece values that a piece consists of, each [1, n] or [1, groups of codes, words]
   */
  private normed(pieces: readonly Piece[], perPiece: number): TtirValue[] {
    const { k, columns } = this;
    const { norm, inner } = this.spec;
    if (!norm) return pieces.map(({ scaled }) => scaled);
    const span = inner / norm.groups;
    const squares = (some: readonly Piece[]): TtirValue =>
      some.map(({ raw }) => this.multiply(raw, raw)).reduce((a, b) => this.add(a, b));
    const out: TtirValue[] = [];
    const count = Math.max(1, span / columns) * perPiece; // values that share factors
    for (let i = 0; i < pieces.length; i += count) {
      const some = pieces.slice(i, i + count);
      const sums = squares(some);
      let factor: TtirValue;
      if (columns <= span) {
        factor = this.factor(this.sumTo(sums, 1)); // [1]
      } else {
        const [groups, n] = [columns / span, sums.dims[1]!];
        const each = this.sumTo(k.reshape(this.sumTo(sums, 2), [groups, n / groups]), 1); // [groups]
        factor = k.reshape(k.broadcast(k.expand(this.factor(each), 1), [groups, n / groups]), [1, n]);
        if (sums.dims.length === 3) factor = k.expand(factor, 2);
      }
      // [1] becomes [1, 1] or [1, 1, 1] by new axes: after a reshape the compiler would hold whole rows in every thread
      while (factor.dims.length < sums.dims.length) factor = k.expand(factor, 1);
      for (const { scaled } of some) out.push(this.multiply(scaled, factor));
    }
    return out;
  }

  /** How a program multiplies some rows, [rows]. Makes the vector ready. */
  private plain(): (rows: TtirValue, mask: TtirValue | undefined) => TtirValue {
    const { k, columns } = this;
    const { inner, format } = this.spec;
    const line = k.range(columns, 1, 2);
    const at = Array.from({ length: inner / columns }, (_, i) => this.offset(line, i * columns));
    const vectors = this.normed(
      at.map((offsets) => this.piece(offsets)),
      1,
    );
    return (rows, mask) => {
      const base = k.binary('arith.muli', k.expand(rows, 1), inner);
      const guard = mask && k.expand(mask, 1);
      const stored = at.map((offsets) => k.load(this.pointer('weights'), this.offset(base, offsets), guard));
      const terms = stored.map((w, i) =>
        this.multiply(format.kind === 'bfloat16' ? k.convert('arith.extf', w, 'f32') : w, vectors[i]!),
      );
      return this.sumTo(
        terms.reduce((a, b) => this.add(a, b)),
        1,
      );
    };
  }

  /**
   * The codes of one position in words, times 16 to the power of fieldOf: the bits become the last ones of a float32 of 2^23,
   * which is then taken away. Converting integers would take eight times as long.
   */
  private field(words: TtirValue, shifted: TtirValue, position: number): TtirValue {
    const { k } = this;
    const bits = k.binary('arith.andi', position < 5 ? words : shifted, 15 << (4 * fieldOf(position)));
    const float = k.convert('tt.bitcast', k.binary('arith.ori', bits, 0x4b000000), 'f32');
    return this.add(float, -(2 ** 23));
  }

  /** As plain(), of codes: sums of codes times vector within words, which then meet the scale and least weight of their group. */
  private packed(groupSize: number): (rows: TtirValue, mask: TtirValue | undefined) => TtirValue {
    const { k, columns } = this;
    const { inner } = this.spec;
    const sum = (xs: TtirValue[]): TtirValue => xs.reduce((a, b) => this.add(a, b));
    const groups = columns / groupSize; // groups of codes in a piece
    const [all, words] = [inner / groupSize, groupSize / 8];
    const group = k.range(groups, 1, 3); // [1, groups, 1]
    const word = k.range(words, 2, 3); // [1, 1, words]
    const line = this.offset(k.binary('arith.muli', group, words), word); // word of a piece
    const channel = this.offset(k.binary('arith.muli', group, groupSize), word); // channel of a word's first code
    const pieces = Array.from({ length: inner / columns }, (_, i) => i);
    const flat = this.normed(
      pieces.flatMap((i) =>
        Array.from({ length: 8 }, (_, position) => this.piece(this.offset(channel, i * columns + position * words))),
      ),
      8,
    );
    const vectors = pieces.map((i) => {
      const xs = flat.slice(i * 8, (i + 1) * 8);
      const scaled = xs.map((x, position) => {
        const power = 16 ** fieldOf(position);
        return power === 1 ? x : this.multiply(x, 1 / power);
      });
      return { scaled, total: sum(xs) };
    });
    return (rows, mask) => {
      const row = k.expand(k.expand(rows, 1), 2); // [rows, 1, 1]
      const guard = mask && k.expand(k.expand(mask, 1), 2);
      const base = this.offset(k.binary('arith.muli', row, inner / 8), line);
      const levels = this.offset(k.binary('arith.muli', row, all), group); // [rows, groups, 1]
      const stored = pieces.map((i) => ({
        codes: k.load(this.pointer('codes'), this.offset(base, (i * columns) / 8), guard),
        scale: k.load(this.pointer('scale'), this.offset(levels, i * groups), guard),
        least: k.load(this.pointer('least'), this.offset(levels, i * groups), guard),
      }));
      const terms = stored.map(({ codes, scale, least }, i) => {
        const shifted = k.binary('arith.shrui', codes, 12);
        const products = vectors[i]!.scaled.map((x, position) =>
          this.multiply(this.field(codes, shifted, position), x),
        );
        return this.add(this.multiply(sum(products), scale), this.multiply(least, vectors[i]!.total));
      });
      return this.sumTo(sum(terms), 1);
    };
  }

  /** log(1 + exp(x)), exact also where it is small. */
  private softplus(x: TtirValue): TtirValue {
    const { k } = this;
    const small = k.unary('math.exp', this.multiply(k.unary('math.absf', x), -1));
    const one = this.add(small, 1); // rounded: log(one) is that of another number, whose error one - 1 shares
    const log = this.multiply(k.unary('math.log', one), k.binary('arith.divf', small, this.add(one, -1)));
    const exact = k.select(k.compare('arith.cmpf oeq', one, 1), small, log);
    return this.add(k.binary('arith.maximumf', x, 0), exact);
  }

  /** Convolution, SiLU and step sizes of rows y, stored behind y. */
  private activate(
    rows: TtirValue,
    y: TtirValue,
    mask: TtirValue | undefined,
    { first, channels, taps, bias, limit }: Activations,
  ): void {
    const { k } = this;
    const both = (a: TtirValue, b: TtirValue | undefined): TtirValue => (b ? k.binary('arith.andi', a, b) : a);
    const channel = this.offset(rows, -first);
    const beyond = both(k.compare('arith.cmpi sge', channel, 0), mask);
    const within = both(k.compare('arith.cmpi slt', channel, channels), beyond);
    const step = this.offset(channel, -channels);
    const steps = both(k.compare('arith.cmpi sge', step, 0), mask);
    const tap = (i: number): TtirValue =>
      k.load(this.pointer('taps'), this.offset(k.binary('arith.muli', channel, taps), i), within);
    const context = this.offset(channel, k.load(this.pointer('place'), k.constant(0, 'i32')));
    let sum = this.multiply(y, tap(taps - 1));
    for (let i = 0; i < taps - 1; i++) {
      const old = k.load(this.pointer('context'), this.offset(context, i * channels), within);
      sum = this.add(sum, this.multiply(old, tap(i)));
    }
    if (bias) sum = this.add(sum, k.load(this.pointer('bias'), channel, within));
    let dt = this.softplus(this.add(y, k.load(this.pointer('dt_bias'), step, steps)));
    if (limit[0] > 0) dt = k.binary('arith.maximumf', dt, limit[0]);
    if (Number.isFinite(limit[1])) dt = k.binary('arith.minimumf', dt, limit[1]);
    k.store(this.pointer('y'), this.offset(channel, this.spec.out), k.select(within, this.silu(sum), dt), beyond);
  }

  build(): TritonKernel {
    const { k, tiling } = this;
    const { format, residual, out, activations } = this.spec;
    const tiles = Math.ceil(out / tiling.rows);
    const turns = Math.min(tiles, tiling.turns);
    const programs = Math.ceil(tiles / turns);
    const multiply = format.kind === 'codes' ? this.packed(format.groupSize) : this.plain();
    const program = k.program();
    const range = k.range(tiling.rows);
    k.repeat(turns, 1, (turn) => {
      const tile = turns === 1 ? program : k.binary('arith.addi', program, k.binary('arith.muli', turn, programs));
      const rows = this.offset(range, k.binary('arith.muli', tile, tiling.rows));
      const mask = turns * programs * tiling.rows === out ? undefined : k.compare('arith.cmpi slt', rows, out);
      let y = multiply(rows, mask);
      if (residual) y = this.add(y, k.load(this.pointer('residual'), rows, mask));
      k.store(this.pointer('y'), rows, y, mask);
      if (activations) this.activate(rows, y, mask, activations);
    });
    return k.kernel({ grid: programs, warps: tiling.warps });
  }
}

/** Where in the low 20 bits the code of a position in a word is put. */
const fieldOf = (position: number): number => (position < 5 ? position : position - 3);

/** Names and types of the inputs of a kernel, in order. */
function parametersOf(spec: RowProductSpec): (readonly [name: string, dtype: Dtype])[] {
  const { format, skip, gated, norm, residual, activations } = spec;
  const float = (...names: string[]): (readonly [string, Dtype])[] => names.map((name) => [name, 'float32']);
  return [
    ...float('x', ...(gated || skip ? ['gate'] : []), ...(skip ? ['skip'] : []), ...(norm ? ['gamma'] : [])),
    ...(format.kind === 'codes'
      ? ([['codes', 'int32'], ...float('scale', 'least')] as const)
      : ([['weights', format.kind]] as const)),
    ...float(...(residual ? ['residual'] : [])),
    ...(activations
      ? ([['place', 'int32'], ...float('context', 'taps', ...(activations.bias ? ['bias'] : []), 'dt_bias')] as const)
      : []),
  ];
}

/** The kernel of a product, over the inputs of parametersOf and the result. */
export function rowProductKernel(spec: RowProductSpec, tiling = rowTiling(spec)): TritonKernel {
  if (!rowProductFits(spec, tiling)) throw new ArgumentError('rowProductKernel: no kernel for these sizes', { spec });
  return new RowProduct(spec, tiling).build();
}

/** What a product is applied to; all float32 but `place`. */
export interface RowProductInputs {
  /** [1, in] */
  x: tf.Tensor;
  /** D, [heads], and where in `gate` the vector begins that it is multiplied by. */
  skip?: { d: tf.Tensor; offset: number };
  /** [1, in or more]: of more, the first in */
  gate?: tf.Tensor;
  /** Weight of the norm, [in], how many groups have a norm each, and the number added to the mean square */
  norm?: { gamma: tf.Tensor; groups: number; epsilon: number };
  /** [1, out] */
  residual?: tf.Tensor;
  activations?: Omit<Activations, 'bias'> & {
    /** Raw inputs before, of all layers, [1, layers, taps-1, channels], and where this layer's begin */
    context: tf.Tensor;
    place: number;
    /** [channels, 1, taps] */
    weights: tf.Tensor;
    /** [channels] */
    bias?: tf.Tensor;
    /** [heads] */
    dtBias: tf.Tensor;
  };
}

/**
 * residual + W·(norm((x + D·skipped)·silu(gate))·gamma), and what follows an input projection, in one kernel. Traced code for a GPU alone,
 * without a gradient.
 * @param shape of the matrix, [out, in]
 * @param matrix variables of the format: weights, or codes, scale and least
 * @returns [1, out], with activations [1, out + channels + heads]; null where the kernel cannot be written, or runs on no GPU
 */
export function rowProduct(
  shape: readonly number[],
  format: RowFormat,
  inputs: RowProductInputs,
  matrix: readonly tf.Tensor[],
): tf.Tensor2D | null {
  const { x, skip, norm, gate, residual, activations: after } = inputs;
  const [out, inner] = shape as [number, number];
  const spec: RowProductSpec = {
    out,
    inner,
    format,
    ...(skip && { skip: { heads: skip.d.size, offset: skip.offset } }),
    gated: gate !== undefined,
    norm: norm && { groups: norm.groups, epsilon: norm.epsilon },
    residual: residual !== undefined,
    ...(after && {
      activations: {
        first: after.first,
        channels: after.channels,
        taps: after.taps,
        heads: after.heads,
        bias: after.bias !== undefined,
        limit: after.limit,
      },
    }),
  };
  if (!tritonRuns() || x.size !== inner || !rowProductFits(spec)) return null;
  const place = after && tf.tensor1d([after.place], 'int32');
  const given = [
    x,
    gate,
    skip?.d,
    norm?.gamma,
    ...matrix,
    residual,
    place,
    after?.context,
    after?.weights,
    after?.bias,
    after?.dtBias,
  ];
  const extra = after ? after.channels + after.heads : 0;
  return runTriton(
    rowProductKernel(spec),
    given.filter((t) => t !== undefined),
    [1, out + extra],
  ) as tf.Tensor2D;
}
