/** A block of a product of one row in PTX, in the making: sizes, what the parameters point to, and what all its parts share. */
import { PtxWriter } from '../../jit/custom_call/ptx.js';
import { type OneRowPtxTiling, oneRowShared, rowsOfBlock } from './ptx_tiling.js';
import { type OneRowSpec, parametersOf } from './spec.js';

export class OneRowBlock {
  readonly k: PtxWriter;
  readonly names: string[];
  /** Which of the warps of a row this one is, and which of the block's rows it begins with. */
  readonly split: string;
  readonly firstRow: string;
  /** First row of the block, and how many are its own. */
  readonly base: string;
  readonly count: string;

  constructor(
    readonly spec: OneRowSpec,
    readonly tiling: OneRowPtxTiling,
  ) {
    const parameters = [...parametersOf(spec), ['y', 'float32'] as const];
    this.names = parameters.map(([name]) => name);
    this.k = new PtxWriter(
      'one_row_product',
      parameters.map(([, dtype]) => dtype),
      tiling.warps,
    );
    const { k } = this;
    const { blocks, splitK } = tiling;
    this.split = k.int('and.b32', k.warp, splitK - 1);
    this.firstRow = k.int('shr.u32', k.warp, Math.log2(splitK));
    ({ base: this.base, count: this.count } = k.share(spec.out, blocks));
  }

  /** An array in shared memory. */
  array(name: keyof ReturnType<typeof oneRowShared>): string {
    return this.k.array(oneRowShared(this.spec, this.tiling)[name]);
  }

  pointer(name: string): string {
    return this.k.pointer(this.names.indexOf(name));
  }

  /** Rows that the warps of a block multiply at a time. */
  get step(): number {
    return this.tiling.warps / this.tiling.splitK;
  }

  /** Most rows of a block. */
  get rows(): number {
    return rowsOfBlock(this.spec, this.tiling);
  }

  get threads(): number {
    return 32 * this.tiling.warps;
  }
}
