/** A block of a kernel of few rows in PTX, in the making: sizes, what the parameters point to, and what all its parts share. */
import { PtxWriter } from '../../jit/custom_call/ptx.js';
import { fewRowsParameters, type FewRowsSpec } from './spec.js';
import { fewRowsShared, type FewRowsTiling, pitchOf, squarePartials, tilesOf, warpsOf } from './tiling.js';

export class FewRowsBlock {
  readonly k: PtxWriter;
  readonly names: string[];
  /** First row of the matrix of the block, and how many are its own. */
  readonly base: string;
  readonly count: string;
  /** Which round the block begins with: the last one is followed by the first. */
  readonly round: string;
  /** Of the warp: which 16 rows of the block, and which of those that share them it is. */
  readonly tile: string;
  readonly kPart: string;
  /** Whether the warp has no rows of the matrix; null where all have. */
  readonly idle: string | null;
  /** Shared memory: k-tiles, then results; and factors of the norm. */
  readonly shared: string;
  readonly factors: string | null;
  readonly warps: number;

  constructor(
    readonly spec: FewRowsSpec,
    readonly tiling: FewRowsTiling,
  ) {
    const parameters = fewRowsParameters(spec);
    this.names = parameters.map(([name]) => name);
    this.warps = warpsOf(spec, tiling);
    const arrays = fewRowsShared(spec, tiling);
    const types = parameters.map(([, dtype]) => dtype);
    const k = (this.k = new PtxWriter(spec.epilogueOnly ? 'few_rows_epilogue' : 'few_rows_product', types, this.warps));
    if (spec.epilogueOnly) {
      this.base = k.int('shl.b32', k.block, 5);
      this.count = k.int('min.u32', k.int('sub.s32', spec.out, this.base), 32);
      this.round = this.kPart = this.tile = this.shared = '';
      this.idle = null;
      this.factors = spec.norm ? k.array(arrays.factors) : null;
      return;
    }
    // blocks begin at different channels, and so read different rows of memory at a time
    const turn = k.int('div.u32', k.int('mul.lo.u32', k.block, this.rounds), tiling.blocks);
    this.round = k.int('min.u32', turn, this.rounds - 1);
    ({ base: this.base, count: this.count } = k.share(spec.out, tiling.blocks));
    this.kPart = k.int('and.b32', k.warp, tiling.splitK - 1);
    this.tile = k.int('shr.u32', k.warp, Math.log2(tiling.splitK));
    const tiles = tilesOf(spec, tiling);
    this.idle = tiles * tiling.splitK < this.warps ? k.compare('ge.u32', this.tile, tiles) : null;
    this.shared = k.array(arrays.tiles);
    this.factors = spec.norm ? k.array(arrays.factors) : null;
  }

  pointer(name: string): string {
    return this.k.pointer(this.names.indexOf(name));
  }

  /** Rounds of a row of the matrix: the k-tiles that weights are under way of at a time. */
  get rounds(): number {
    return this.spec.inner / (32 * this.tiling.kTile * this.tiling.tilesAhead);
  }

  get threads(): number {
    return 32 * this.warps;
  }

  /** Goes on to the next of `count` places of `bytes` each, from the last one to the first. @param number of the place */
  ring(place: string, add: 'add.s64' | 'add.u32', number: string, bytes: number, count: number): void {
    const { k } = this;
    k.run(add, place, place, bytes);
    k.run('add.u32', number, number, 1);
    const over = k.compare('eq.u32', number, count);
    k.when(over, () => {
      k.run(add, place, place, -count * bytes);
      k.run('mov.u32', number, 0);
    });
  }

  /** See pitchOf(). */
  get pitch(): number {
    return pitchOf(this.spec, this.tiling);
  }

  /** See squarePartials(). */
  get partials(): number {
    return squarePartials(this.spec, this.tiling);
  }
}
