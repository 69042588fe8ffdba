/**
 * Row products (row_product.ts) in PTX, for matrices of bfloat16 and of four-bit codes. One block for each multiprocessor: it asks for its
 * first rows, makes the vector ready while they are on their way, and then always has a row ahead of the one that it multiplies.
 */
import { ArgumentError } from '../errors/index.js';
import { PtxWriter, SHARED_BYTES } from './ptx.js';
import { preparer } from './row_ptx_vector.js';
import { Ending } from './row_ptx_ending.js';
import { type Fetch, fetchSpan } from './ptx_fetch.js';
import { rowReader, type RowReader, storedSpans } from './row_ptx_rows.js';
import { parametersOf, type RowProductSpec } from './row_spec.js';
import type { TritonKernel } from './triton.js';
import type { Dtype } from './types.js';

/** How a row product is shared out: a matter of speed only. */
export interface RowPtxTiling {
  /** Blocks: as many as the card runs at a time. An H100 has 132 multiprocessors. */
  blocks: number;
  warps: number;
  /** Warps that share a row. */
  parts: number;
}

/** Where the parameters of a product point to, by the names of parametersOf and `y`. */
export type RowPointers = Readonly<Record<string, string>>;

/** A product in the making: sizes, what the parameters point to, and what all its parts share. */
export class RowPtx {
  /** Which of the warps of a row this one is, and which of the block's rows it begins with. */
  readonly part: string;
  readonly firstRow: string;
  /** First row of the block, and how many are its own. */
  readonly base: string;
  readonly count: string;

  constructor(
    readonly k: PtxWriter,
    readonly spec: RowProductSpec,
    readonly tiling: RowPtxTiling,
    private readonly pointers: RowPointers,
    readonly moves: Moves = 'never',
  ) {
    const { blocks, parts } = tiling;
    this.part = k.int('and.b32', k.warp, parts - 1);
    this.firstRow = k.int('shr.u32', k.warp, Math.log2(parts));
    const [whole, rest] = [Math.floor(spec.out / blocks), spec.out % blocks];
    const before = k.int('min.u32', k.block, rest);
    this.base = k.int('mad.lo.u32', k.block, whole, before);
    this.count = k.int('add.u32', k.int('selp.u32', 1, 0, k.compare('lt.u32', k.block, rest)), whole);
  }

  pointer(name: string): string {
    return this.pointers[name]!;
  }

  /** Rows that the warps of a block multiply at a time. */
  get step(): number {
    return this.tiling.warps / this.tiling.parts;
  }

  /** Most rows of a block. */
  get rows(): number {
    return Math.ceil(this.spec.out / this.tiling.blocks);
  }

  get threads(): number {
    return 32 * this.tiling.warps;
  }
}

/** Pieces that were fastest on an H100. */
export function rowPtxTiling({ inner, out, format }: RowProductSpec, blocks = 132): RowPtxTiling {
  const warps = 16;
  // values that a warp can hold of a row, twice
  const most = format.kind === 'codes' ? 4096 : 2560;
  let parts = 1;
  while (inner / parts > most) parts *= 2;
  // of few rows no warp stays idle
  if ((warps / parts) * blocks > 2 * out && inner % (512 * parts) === 0) parts *= 2;
  return { blocks, warps, parts };
}

/** Whether the kernel can be written for these sizes. */
export function rowPtxFits(spec: RowProductSpec, tiling = rowPtxTiling(spec)): boolean {
  const { out, inner, format, norm, activations, residual } = spec;
  const { blocks, warps, parts } = tiling;
  if (format.kind === 'float32') return false;
  if (format.kind === 'codes' && (format.groupSize !== 128 || format.exact)) return false;
  const span = norm ? inner / norm.groups : inner;
  const part = inner / parts;
  // norms end with a warp's channels, and a part of a row with a piece
  if (inner % 256 !== 0 || parts > warps || part > 4096 || span % 256 !== 0) return false;
  if (norm && norm.groups > 1 && (part % 256 !== 0 || (part % span !== 0 && span % part !== 0))) return false;
  if (part % (format.kind === 'codes' ? 128 : 256) !== 0) return false;
  const rows = Math.ceil(out / blocks);
  if ((activations || residual) && rows > 32 * warps) return false;
  const vector = format.kind === 'codes' ? (inner / 128) * 328 : Math.ceil(inner / 256) * 1024;
  return vector + rows * (4 * parts + 16) + 1024 < SHARED_BYTES && out * inner < 2 ** 31;
}

/** Whether the convolution's older inputs are moved on where they lie; `masked` only where `mask` points to more than 0. */
export type Moves = 'never' | 'always' | 'masked';

/** Names and types of a kernel's parameters, results last: `moved`, which is the context's memory, where that is moved on. */
export function rowPtxParameters(
  spec: RowProductSpec,
  moves: Moves = 'never',
): (readonly [name: string, dtype: Dtype])[] {
  return [
    ...parametersOf(spec),
    ...(moves === 'masked' ? [['mask', 'float32'] as const] : []),
    ['y', 'float32'],
    ...(moves === 'never' ? [] : [['moved', 'float32'] as const]),
  ];
}

/** The kernel of a product. */
export function rowPtxKernel(spec: RowProductSpec, tiling = rowPtxTiling(spec), moves: Moves = 'never'): TritonKernel {
  return rowPtxWriter(spec, tiling, moves).kernel(tiling.blocks);
}

/** The kernel as it is written. */
export function rowPtxWriter(spec: RowProductSpec, tiling = rowPtxTiling(spec), moves: Moves = 'never'): PtxWriter {
  if (!rowPtxFits(spec, tiling)) throw new ArgumentError('rowPtxKernel: no kernel for these sizes', { spec, tiling });
  const parameters = rowPtxParameters(spec, moves);
  const k = new PtxWriter(
    'row_product',
    parameters.map(([, dtype]) => dtype),
    tiling.warps,
  );
  const own: Record<string, string> = Object.fromEntries(parameters.map(([name], i) => [name, k.pointer(i)]));
  const pointers = { ...own, ...(own['moved'] && { context: own['moved'] }) };
  new RowPhase(new RowPtx(k, spec, tiling, pointers, moves)).run();
  return k;
}

/** The work of a product within a kernel. */
export class RowPhase {
  private rows: RowReader | null = null;

  constructor(private readonly w: RowPtx) {}

  /** Asks for the first rows, before the vector is there. */
  ask(): void {
    this.rows = rowReader(this.w);
    this.rows.ask(0);
    this.rows.ask(1);
  }

  /** @param ahead what a warp does once, when it has asked for its last row and two rows are still to come, or fewer */
  run(ahead: () => void = () => {}): void {
    const { w } = this;
    const { k } = w;
    const ending = new Ending(w);
    const vector = preparer(w);
    vector.ask();
    // some of it hangs on a number that must be read first: warps that have no part in it do not wait
    const idle = k.compare('ge.u32', k.int('and.b32', k.thread, -32), w.count);
    k.unless(idle, () => ending.ask());
    if (!this.rows) this.ask();
    const rows = this.rows!;
    const zero = k.barrierZero();
    vector.write(zero);
    k.unless(idle, () => ending.keep(zero));
    k.barrier();
    const scale = vector.finish();
    rows.begin(vector);
    const row = k.int('mov.u32', w.firstRow);
    // the row after the next one is not there, but the next one is
    const nearEnd = (): void =>
      k.unless(k.compare('ge.u32', row, w.count), () => {
        const after = k.int('add.u32', row, w.step);
        k.unless(k.compare('lt.u32', after, w.count), ahead);
      });
    k.unless(k.compare('lt.u32', k.int('add.u32', row, w.step), w.count), ahead);
    k.unless(k.compare('ge.u32', row, w.count), () => {
      const multiply = (buffer: number): void => {
        const sum = k.across('add.f32', rows.multiply(buffer));
        const to = ending.sum(row);
        k.when(k.compare('eq.u32', k.lane, 0), () => k.run('st.shared.f32', `[${to}]`, sum));
        k.run('add.u32', row, row, w.step);
        nearEnd();
      };
      k.repeat(() => {
        multiply(0);
        k.unless(k.compare('ge.u32', row, w.count), () => multiply(1));
        return k.compare('lt.u32', row, w.count);
      });
    });
    k.barrier();
    ending.finish(scale);
  }

  /** Brings the warp's `index`th row into the cache. */
  fetch(index: number, how: Fetch): void {
    const { w } = this;
    const { k } = w;
    const row = k.int('add.u32', w.firstRow, index * w.step);
    k.unless(k.compare('ge.u32', row, w.count), () => {
      const place = k.int('add.u32', w.base, row);
      for (const { name, bytes } of storedSpans(w.spec)) {
        const part = k.int('mad.lo.u32', place, w.tiling.parts, w.part);
        fetchSpan(k, k.address(w.pointer(name), part, bytes / w.tiling.parts), bytes / w.tiling.parts, how);
      }
    });
  }
}
