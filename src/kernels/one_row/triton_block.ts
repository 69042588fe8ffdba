/** The parts of a product of one row in Triton's language but for the matrix: the vector with gate and norm, and what follows the product. */
import { TritonWriter, type TtirValue } from '../../jit/custom_call/triton.js';
import type { EpilogueSpec } from '../epilogue/spec.js';
import { type OneRowSpec, parametersOf } from './spec.js';
import { kTileOf, type OneRowTritonTiling } from './triton_tiling.js';

/** A k-tile of the vector: before the weights of the norm and after. */
export interface VectorTile {
  raw: TtirValue;
  scaled: TtirValue;
}

/** Writes the parts of a row product that do not depend on how the matrix is stored. */
export class OneRowTriton {
  readonly k: TritonWriter;
  readonly kTile: number;
  private readonly pointers = new Map<string, TtirValue>();

  constructor(
    readonly spec: OneRowSpec,
    readonly tiling: OneRowTritonTiling,
  ) {
    this.kTile = kTileOf(spec, tiling.kTile);
    const parameters = [...parametersOf(spec), ['y', 'float32'] as const];
    this.k = new TritonWriter(
      'one_row_product',
      parameters.map(([, dtype]) => dtype),
    );
    parameters.forEach(([name], i) => this.pointers.set(name, this.k.parameters[i]!));
  }

  pointer(name: string): TtirValue {
    return this.pointers.get(name)!;
  }

  add(a: TtirValue, b: TtirValue | number): TtirValue {
    return this.k.binary('arith.addf', a, b);
  }

  multiply(a: TtirValue, b: TtirValue | number): TtirValue {
    return this.k.binary('arith.mulf', a, b);
  }

  offset(a: TtirValue, b: TtirValue | number): TtirValue {
    return b === 0 ? a : this.k.binary('arith.addi', a, b);
  }

  private silu(x: TtirValue): TtirValue {
    return this.k.binary('arith.divf', x, this.add(this.k.unary('math.exp', this.multiply(x, -1)), 1));
  }

  /** Elements of the vector at offsets, before and after the weights of the norm, without its factor. */
  vectorTile(at: TtirValue): VectorTile {
    const { k } = this;
    const raw = k.load(this.pointer('x'), at);
    return { raw, scaled: this.spec.norm ? this.multiply(raw, k.load(this.pointer('gamma'), at)) : raw };
  }

  total(xs: readonly TtirValue[]): TtirValue {
    return xs.reduce((a, b) => this.add(a, b));
  }

  sumTo(x: TtirValue, rank: number): TtirValue {
    return x.dims.length <= rank ? x : this.sumTo(this.k.sum(x, x.dims.length - 1), rank);
  }

  /** 1 / sqrt(mean square + epsilon) from sums of squares. */
  private factor(squares: TtirValue): TtirValue {
    const { groups, epsilon } = this.spec.norm!;
    return this.k.unary('math.rsqrt', this.add(this.multiply(squares, groups / this.spec.inner), epsilon));
  }

  /**
   * The vector after its norm, by k-tile and, for codes, position in a word.
   * @param perTile values that a k-tile consists of, each [1, n] or [1, groups of codes, words]
   */
  normed(tiles: readonly VectorTile[], perTile: number): TtirValue[] {
    const { k, kTile } = this;
    const { norm, inner } = this.spec;
    if (!norm) return tiles.map(({ scaled }) => scaled);
    const span = inner / norm.groups;
    const squares = (some: readonly VectorTile[]): TtirValue =>
      this.total(some.map(({ raw }) => this.multiply(raw, raw)));
    const out: TtirValue[] = [];
    const count = Math.max(1, span / kTile) * perTile; // values that share factors
    for (let i = 0; i < tiles.length; i += count) {
      const some = tiles.slice(i, i + count);
      const sums = squares(some);
      let factor: TtirValue;
      if (kTile <= span) {
        factor = this.factor(this.sumTo(sums, 1)); // [1]
      } else {
        const [groups, n] = [kTile / span, sums.dims[1]!];
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

  /** y with SiLU where rows are of the gate. */
  gateOf(rows: TtirValue, y: TtirValue, { first }: EpilogueSpec): TtirValue {
    return this.k.select(this.k.compare('arith.cmpi slt', rows, first), this.silu(y), y);
  }

  /** Convolution, SiLU, step sizes and decays of rows y, stored behind y. */
  activate(
    rows: TtirValue,
    y: TtirValue,
    mask: TtirValue | undefined,
    { first, channels, taps, bias, limit, heads }: EpilogueSpec,
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
    let dt = k.softplus(this.add(y, k.load(this.pointer('dt_bias'), step, steps)));
    if (limit[0] > 0) dt = k.binary('arith.maximumf', dt, limit[0]);
    if (Number.isFinite(limit[1])) dt = k.binary('arith.minimumf', dt, limit[1]);
    const at = this.offset(channel, this.spec.out);
    k.store(this.pointer('y'), at, k.select(within, this.silu(sum), dt), beyond);
    const rate = k.unary('math.exp', k.load(this.pointer('A_log'), step, steps));
    const decay = k.unary('math.exp', this.multiply(this.multiply(dt, rate), -1));
    k.store(this.pointer('y'), this.offset(at, heads), decay, steps);
  }
}
