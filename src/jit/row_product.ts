/**
 * Decoding on a GPU is a product of every matrix with one vector, with small work around it, and each kernel costs about as much as
 * it takes to start it. Here a matrix, the norm and gate before it and the residual after it are one kernel, a Triton kernel of
 * our own: every program works the norm out anew and multiplies a few rows. Vectors stay float32 and are not rounded.
 */
import type * as tf from '@tensorflow/tfjs';
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
  /** RMS norm before the product: groups of channels with a norm each, and the number added to the mean square. */
  norm?: { groups: number; epsilon: number };
  /** x is multiplied by silu(gate) before the norm. */
  gated?: boolean;
  /** A vector is added after the product. */
  residual?: boolean;
}

/** Sizes of the pieces that programs work in: a matter of speed only. */
export interface RowProductTiling {
  /** Rows of a program. */
  rows: number;
  /** Most columns that are multiplied at a time. */
  columns: number;
  warps: number;
  /** Most pieces of columns that are read before they are multiplied. */
  unroll: number;
}

const powerOfTwo = (n: number): number => n & -n;

/** The largest divisor of n that is at most `most`. */
function divisorUpTo(n: number, most: number): number {
  let d = Math.min(n, most);
  while (n % d !== 0) d--;
  return d;
}

/** Columns of a piece: a power of two that divides the columns of a norm's group, and holds whole groups of codes. 0: there is none. */
function columnsOf(spec: RowProductSpec, most: number): number {
  const span = spec.inner / (spec.norm?.groups ?? 1);
  if (!Number.isInteger(span)) return 0;
  const columns = Math.min(powerOfTwo(span), most);
  if (spec.format.kind !== 'codes') return columns >= 32 ? columns : 0;
  const { groupSize } = spec.format;
  return powerOfTwo(groupSize) === groupSize && groupSize >= 32 && columns >= groupSize ? columns : 0;
}

/** Pieces that were fastest on an H100 (bench/cuda/README.md). */
export function rowTiling(spec: RowProductSpec): RowProductTiling {
  return { rows: spec.inner > 1024 ? 8 : 4, columns: 512, warps: 4, unroll: 2 };
}

/** Whether the kernel can be written for these sizes. */
export function rowProductFits(spec: RowProductSpec, tiling = rowTiling(spec)): boolean {
  const columns = columnsOf(spec, tiling.columns);
  return columns > 0 && spec.out * spec.inner < 2 ** 31;
}

/** What a group of channels adds up to: weights times the vector, elementwise over the pieces, and the squares of the vector. */
interface Sums {
  products: TtirValue;
  squares: TtirValue;
}

/** Partial sums, to which a piece adds its own. */
type AddPiece = (column: TtirValue, sums: Sums) => Sums;

class RowProduct {
  private readonly k: TritonWriter;
  private readonly columns: number;
  private readonly pointers = new Map<string, TtirValue>();
  private readonly rows: TtirValue;
  private readonly mask: TtirValue | undefined;

  constructor(
    private readonly spec: RowProductSpec,
    private readonly tiling: RowProductTiling,
  ) {
    const { format } = spec;
    this.columns = columnsOf(spec, tiling.columns);
    const parameters: [string, Dtype][] = [
      ['x', 'float32'],
      ...(spec.gated ? [['gate', 'float32'] as [string, Dtype]] : []),
      ...(spec.norm ? [['gamma', 'float32'] as [string, Dtype]] : []),
      ...(format.kind === 'codes'
        ? ([
            ['codes', 'int32'],
            ['scale', 'float32'],
            ['least', 'float32'],
          ] as [string, Dtype][])
        : [['weights', format.kind] as [string, Dtype]]),
      ...(spec.residual ? [['residual', 'float32'] as [string, Dtype]] : []),
      ['y', 'float32'],
    ];
    this.k = new TritonWriter(
      'row_product',
      parameters.map(([, dtype]) => dtype),
    );
    parameters.forEach(([name], i) => this.pointers.set(name, this.k.parameters[i]!));
    const first = this.k.binary('arith.muli', this.k.program(), tiling.rows);
    this.rows = this.k.binary('arith.addi', this.k.range(tiling.rows), first);
    this.mask = spec.out % tiling.rows === 0 ? undefined : this.k.less(this.rows, spec.out);
  }

  private pointer(name: string): TtirValue {
    return this.pointers.get(name)!;
  }

  private add(a: TtirValue, b: TtirValue): TtirValue {
    return this.k.binary('arith.addf', a, b);
  }

  private multiply(a: TtirValue, b: TtirValue | number): TtirValue {
    return this.k.binary('arith.mulf', a, b);
  }

  /** Elements of the vector at offsets, gated: before the weights of the norm and after. */
  private vector(offsets: TtirValue): { raw: TtirValue; scaled: TtirValue } {
    const { k } = this;
    let raw = k.load(this.pointer('x'), offsets);
    if (this.spec.gated) {
      const z = k.load(this.pointer('gate'), offsets);
      const grown = this.add(k.unary('math.exp', this.multiply(z, k.constant(-1, 'f32'))), k.constant(1, 'f32'));
      raw = this.multiply(raw, k.binary('arith.divf', z, grown));
    }
    return { raw, scaled: this.spec.norm ? this.multiply(raw, k.load(this.pointer('gamma'), offsets)) : raw };
  }

  /** Sum of all axes but the first `kept`. */
  private total(x: TtirValue, kept: number): TtirValue {
    return x.dims.length <= kept ? x : this.total(this.k.sum(x, x.dims.length - 1), kept);
  }

  /** The whole product, [rows]: by groups of the norm, each of which has a factor of its own. */
  private product(dims: readonly number[], addPiece: AddPiece): TtirValue {
    const { k, columns, tiling } = this;
    const { inner, norm } = this.spec;
    const groups = norm?.groups ?? 1;
    const span = inner / groups;
    const pieces = divisorUpTo(span / columns, tiling.unroll);
    const start = { products: k.zeros([tiling.rows, ...dims]), squares: k.zeros([1, ...dims]) };
    const group = (from: TtirValue): TtirValue => {
      const [products, squares] = k.loop(span, pieces * columns, [start.products, start.squares], (at, carried) => {
        let sums = { products: carried[0]!, squares: carried[1]! };
        const column = k.binary('arith.addi', from, at);
        for (let i = 0; i < pieces; i++)
          sums = addPiece(i === 0 ? column : k.binary('arith.addi', column, i * columns), sums);
        return [sums.products, sums.squares];
      }) as [TtirValue, TtirValue];
      const rows = this.total(products, 1);
      if (!norm) return rows;
      const mean = this.multiply(this.total(squares, 1), k.constant(groups / inner, 'f32')); // [1]
      return this.multiply(rows, k.unary('math.rsqrt', this.add(mean, k.constant(norm.epsilon, 'f32'))));
    };
    if (groups === 1) return group(k.constant(0, 'i32'));
    return k.loop(inner, span, [k.zeros([tiling.rows])], (from, [sum]) => [this.add(sum!, group(from))])[0]!;
  }

  private plain(): TtirValue {
    const { k, columns } = this;
    const { inner, format } = this.spec;
    const line = k.range(columns, 1, 2);
    const base = k.binary('arith.muli', k.expand(this.rows, 1), inner);
    const mask = this.mask && k.expand(this.mask, 1);
    return this.product([columns], (column, { products, squares }) => {
      const at = k.binary('arith.addi', line, column);
      const stored = k.load(this.pointer('weights'), k.binary('arith.addi', base, at), mask);
      const weights = format.kind === 'bfloat16' ? k.convert('arith.extf', stored, 'f32') : stored;
      const { raw, scaled } = this.vector(at);
      return {
        products: this.add(products, this.multiply(weights, scaled)),
        squares: this.add(squares, this.multiply(raw, raw)),
      };
    });
  }

  /**
   * The codes of one position in words, times a power of two that is given back: the bits become the last ones of a float32 of 2^23,
   * which is then taken away. Converting integers would take eight times as long.
   */
  private field(words: TtirValue, shifted: TtirValue, position: number): { codes: TtirValue; power: number } {
    const { k } = this;
    // bits above the 20th do not fit into the fraction
    const field = position < 5 ? position : position - 3;
    const bits = k.binary('arith.andi', position < 5 ? words : shifted, 15 << (4 * field));
    const float = k.convert('tt.bitcast', k.binary('arith.ori', bits, 0x4b000000), 'f32');
    return { codes: k.binary('arith.subf', float, 2 ** 23), power: 16 ** field };
  }

  /** Sums of codes times vector within words, which then meet the scale and least weight of their group. */
  private packed(groupSize: number): TtirValue {
    const { k, columns } = this;
    const { inner } = this.spec;
    const groups = columns / groupSize; // groups of codes in a piece
    const [all, words] = [inner / groupSize, groupSize / 8];
    const group = k.range(groups, 1, 3); // [1, groups, 1]
    const word = k.range(words, 2, 3); // [1, 1, words]
    const row = k.expand(k.expand(this.rows, 1), 2); // [rows, 1, 1]
    const mask = this.mask && k.expand(k.expand(this.mask, 1), 2);
    const line = k.binary('arith.addi', k.binary('arith.muli', group, words), word); // word of a piece
    const channel = k.binary('arith.addi', k.binary('arith.muli', group, groupSize), word); // channel of a word's first code
    const base = k.binary('arith.addi', k.binary('arith.muli', row, inner / 8), line);
    const levels = k.binary('arith.addi', k.binary('arith.muli', row, all), group); // [rows, groups, 1]
    return this.product([groups, words], (column, { products, squares }) => {
      const read = (name: string, offsets: TtirValue, unit: number): TtirValue =>
        k.load(this.pointer(name), k.binary('arith.addi', offsets, k.binary('arith.divsi', column, unit)), mask);
      const codes = read('codes', base, 8);
      const [scale, least] = [read('scale', levels, groupSize), read('least', levels, groupSize)];
      const first = k.binary('arith.addi', channel, column);
      const shifted = k.binary('arith.shrui', codes, 12);
      const terms: TtirValue[] = [];
      const vectors: TtirValue[] = [];
      for (let position = 0; position < 8; position++) {
        const { raw, scaled } = this.vector(position === 0 ? first : k.binary('arith.addi', first, position * words));
        const field = this.field(codes, shifted, position);
        terms.push(this.multiply(field.codes, field.power === 1 ? scaled : this.multiply(scaled, 1 / field.power)));
        vectors.push(scaled);
        squares = this.add(squares, this.multiply(raw, raw));
      }
      const sum = (xs: TtirValue[]): TtirValue => xs.reduce((a, b) => this.add(a, b));
      const own = this.add(this.multiply(sum(terms), scale), this.multiply(least, sum(vectors)));
      return { products: this.add(products, own), squares };
    });
  }

  build(): TritonKernel {
    const { k, rows, mask } = this;
    const { format, residual, out } = this.spec;
    let y = format.kind === 'codes' ? this.packed(format.groupSize) : this.plain();
    if (residual) y = k.binary('arith.addf', y, k.load(this.pointer('residual'), rows, mask));
    k.store(this.pointer('y'), rows, y, mask);
    return k.kernel({ grid: Math.ceil(out / this.tiling.rows), warps: this.tiling.warps });
  }
}

/**
 * The kernel of a product. Its parameters: x, gate, gamma, the matrix (weights, or codes, scale and least), residual, y; those that the
 * spec does not ask for are left out.
 */
export function rowProductKernel(spec: RowProductSpec, tiling = rowTiling(spec)): TritonKernel {
  if (!rowProductFits(spec, tiling)) throw new ArgumentError('rowProductKernel: no kernel for these sizes', { spec });
  return new RowProduct(spec, tiling).build();
}

/** What a product is applied to; all float32. */
export interface RowProductInputs {
  /** The norm before the product. */
  norm?: { groups: number; epsilon: number };
  /** [1, in] */
  x: tf.Tensor;
  /** [1, in or more]: of more, the first in */
  gate?: tf.Tensor;
  /** Weight of the norm, [in]; with `norm` */
  gamma?: tf.Tensor;
  /** [1, out] */
  residual?: tf.Tensor;
}

/**
 * residual + W·(norm(x·silu(gate))·gamma) in one kernel. Traced code for a GPU alone, without a gradient.
 * @param shape of the matrix, [out, in]
 * @param matrix variables of the format: weights, or codes, scale and least
 * @returns [1, out]; null where the kernel cannot be written, or runs on no GPU
 */
export function rowProduct(
  shape: readonly number[],
  format: RowFormat,
  inputs: RowProductInputs,
  matrix: readonly tf.Tensor[],
): tf.Tensor2D | null {
  const { x, norm, gate, gamma, residual } = inputs;
  const [out, inner] = shape as [number, number];
  const spec: RowProductSpec = {
    out,
    inner,
    format,
    norm,
    gated: gate !== undefined,
    residual: residual !== undefined,
  };
  if (!tritonRuns() || x.size !== inner || !rowProductFits(spec)) return null;
  const given = [x, gate, gamma, ...matrix, residual].filter((t) => t !== undefined);
  return runTriton(rowProductKernel(spec), given, [1, spec.out]) as tf.Tensor2D;
}
