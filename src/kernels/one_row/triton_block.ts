/** The parts of a product of one row in Triton's language but for the matrix: the vector with gate and norm, and what follows the product. */
import { TritonWriter, type TtirValue } from '../../jit/custom_call/triton.js';
import { Epilogue } from '../epilogue/epilogue.js';
import type { EpilogueSpec } from '../epilogue/spec.js';
import { TritonElements } from '../epilogue/triton_elements.js';
import { type OneRowSpec, parametersOf } from './spec.js';
import { kTileOf, type OneRowTritonTiling } from './triton_tiling.js';

/** A k-tile of the vector: before the weights of the norm and after. */
export interface VectorTile {
  raw: TtirValue;
  scaled: TtirValue;
}

/** Writes the parts of a product of one row that do not depend on how the matrix is stored. */
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

  /** Writes what becomes of an input projection's product. @param rows positions, that exist where the mask holds */
  epilogue(spec: EpilogueSpec, rows: TtirValue, y: TtirValue, mask?: TtirValue): void {
    const epilogue = new Epilogue(new TritonElements(this.k, (name) => this.pointer(name)), spec, rows, mask ?? null);
    const context = epilogue.context(epilogue.contextAt('context'));
    const result = epilogue.finish(y, epilogue.known(epilogue.operands(), context));
    epilogue.storeBehind(y, result, this.spec.out);
  }
}
