/**
 * Row products (row_product.ts) in PTX, for matrices of bfloat16 and of four-bit codes. One block for each multiprocessor: it asks for its
 * first rows, makes the vector ready while they are on their way, and then always has a row ahead of the one that it multiplies.
 */
import { ArgumentError } from '../errors/index.js';
import { PtxWriter, SHARED_BYTES } from './ptx.js';
import { preparer } from './row_ptx_vector.js';
import { type Fetch, fetchSpan } from './ptx_fetch.js';
import { rowReader, type RowReader, storedSpans } from './row_ptx_rows.js';
import { type Activations, parametersOf, type RowProductSpec } from './row_spec.js';
import type { TritonKernel } from './triton.js';

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

  /**
   * @param moves whether the convolution's older inputs are moved on where they lie: `masked` where `mask` points to more than 0
   */
  constructor(
    readonly k: PtxWriter,
    readonly spec: RowProductSpec,
    readonly tiling: RowPtxTiling,
    private readonly pointers: RowPointers,
    readonly moves: 'never' | 'always' | 'masked' = 'never',
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
  return vector + rows * (4 * parts + 12) + 1024 < SHARED_BYTES && out * inner < 2 ** 31;
}

/** What is asked for of a channel or step size: registers, and under which conditions they mean something. */
interface Asked {
  inside: string;
  step: string;
  moves: string | null;
  context: string;
  taps: string[];
  old: string[];
  bias: string | null;
  stepBias: string;
  rate: string;
}

/** Sums of rows, what is added to them, and what follows: one thread a row. */
class Ending {
  private readonly sums: string;
  private readonly ready: string | null = null;
  private readonly within: string;
  private readonly place: string;

  constructor(private readonly w: RowPtx) {
    const { k, spec, tiling } = w;
    this.sums = k.array(4 * tiling.parts * w.rows);
    // what is known: the vector to add; or a sum, and the factor of the row's product or A_log
    if (spec.activations || spec.residual) this.ready = k.array(8 * w.rows);
    this.within = k.compare('lt.u32', k.thread, w.count);
    this.place = k.int('add.u32', w.base, k.thread);
  }

  /** Where a warp puts the sum of a row of the block. */
  sum(row: string): string {
    const { k, tiling, part } = this.w;
    return k.place(this.sums, k.int('mad.lo.u32', row, tiling.parts, part), 4);
  }

  /** The channel of a row after an input projection, and whether it is one of the convolution or a step size. */
  private channel(row: string, within: string): { channel: string; inside: string; step: string } {
    const { k, spec } = this.w;
    const { first, channels } = spec.activations!;
    const channel = k.int('sub.s32', row, first);
    const both = (a: string): string => k.set('p', 'and.pred', a, within);
    const begun = both(k.compare('ge.s32', channel, 0));
    const small = k.compare('lt.s32', channel, channels);
    const inside = k.set('p', 'and.pred', begun, small);
    const step = both(k.compare('ge.s32', channel, channels));
    return { channel, inside, step };
  }

  /** Where the older inputs of a channel are. @param offset the channel's, in bytes */
  private context(offset: string): string {
    const { k } = this.w;
    const start = k.int('ld.global.nc.b32', `[${this.w.pointer('place')}]`);
    return k.set('d', 'add.s64', k.address(this.w.pointer('context'), start, 4), offset);
  }

  /** Whether older inputs are moved on by one where they lie, and with them the channel's; null where that is left to others. */
  private moving(inside: string): string | null {
    const { k, moves } = this.w;
    if (moves === 'never') return null;
    if (moves === 'always') return inside;
    const mask = k.set('f', 'ld.global.nc.f32', `[${this.w.pointer('mask')}]`);
    return k.set('p', 'and.pred', inside, k.compare('gt.f32', mask, '0f00000000'));
  }

  /**
   * Asks for what needs no product: the vector to add; of a channel the convolution's older taps, of a step size its bias. Before the rows, or
   * it would come after them.
   */
  ask(): void {
    const { k, spec } = this.w;
    if (spec.residual) {
      const at = k.address(this.w.pointer('residual'), this.place, 4);
      this.added = k.register('f');
      k.when(this.within, () => k.run('ld.global.f32', this.added, `[${at}]`));
    }
    if (spec.activations) this.channelsAsked = this.askChannels(spec.activations);
  }

  private added = '';
  private channelsAsked: Asked | null = null;

  private askChannels(after: Activations): Asked {
    const { k } = this.w;
    const { channel, inside, step } = this.channel(this.place, this.within);
    const offset = k.set('d', 'mul.wide.s32', channel, 4);
    const tapAt = k.set('d', 'add.s64', this.w.pointer('taps'), k.set('d', 'mul.wide.s32', channel, 4 * after.taps));
    const context = this.context(offset);
    const moves = this.moving(inside);
    const taps = k.registers('f', after.taps);
    const old = k.registers('f', after.taps - 1);
    k.when(inside, () => {
      taps.forEach((tap, i) => k.run('ld.global.f32', tap, `[${tapAt}+${4 * i}]`));
      old.forEach((x, i) => k.run('ld.global.f32', x, `[${context}+${4 * i * after.channels}]`));
    });
    let bias: string | null = null;
    if (after.bias) {
      bias = k.register('f');
      const at = k.set('d', 'add.s64', this.w.pointer('bias'), offset);
      k.when(inside, () => k.run('ld.global.f32', bias!, `[${at}]`));
    }
    const [stepBias, rate] = k.registers('f', 2);
    const at = k.set('d', 'add.s64', this.w.pointer('dt_bias'), offset);
    const rateAt = k.set('d', 'add.s64', this.w.pointer('A_log'), offset);
    k.when(step, () => {
      k.run('ld.global.f32', stepBias, `[${at}+${-4 * after.channels}]`);
      k.run('ld.global.f32', rate, `[${rateAt}+${-4 * after.channels}]`);
    });
    return { inside, step, moves, context, taps, old, bias, stepBias: stepBias!, rate: rate! };
  }

  /** Keeps it until there are products, in shared memory. @param zero see PtxWriter.barrierZero */
  keep(zero: string): void {
    const { k, spec } = this.w;
    if (!this.ready) return;
    const to = k.place(this.ready, k.thread, 8);
    if (spec.residual) k.when(this.within, () => k.run('st.shared.f32', `[${to}]`, this.added));
    if (!this.channelsAsked) return;
    const { inside, step, moves, context, taps, old, bias, stepBias, rate } = this.channelsAsked;
    const { channels } = spec.activations!;
    const known = k.float('mov.b32', zero);
    const factor = k.float('mov.f32', 0);
    k.when(inside, () => {
      old.forEach((x, i) => k.run('fma.rn.f32', known, taps[i]!, x, known));
      if (bias) k.run('add.f32', known, known, bias);
      k.run('mov.f32', factor, taps.at(-1)!);
    });
    k.when(step, () => {
      k.run('mov.f32', known, stepBias);
      k.run('mov.f32', factor, rate);
    });
    k.when(moves, () => {
      if (moves) old.slice(1).forEach((x, i) => k.run('st.global.f32', `[${context}+${4 * i * channels}]`, x));
    });
    k.when(this.within, () => k.run('st.shared.v2.f32', `[${to}]`, `{${known}, ${factor}}`));
  }

  /** @param scale what all products are multiplied by */
  finish(scale: string | null): void {
    const { k } = this.w;
    const row = k.int('mov.u32', k.thread);
    const end = k.int('mov.u32', this.w.count);
    k.repeat(() => {
      const within = k.compare('lt.u32', row, end);
      this.row(row, within, scale);
      k.run('add.u32', row, row, this.w.threads);
      // the same for all threads of a warp: where its first one is done
      const lead = k.int('and.b32', row, -32);
      return k.compare('lt.u32', lead, end);
    });
  }

  private row(row: string, within: string, scale: string | null): void {
    const { k, spec, tiling } = this.w;
    const { parts } = tiling;
    const from = k.place(this.sums, row, 4 * parts);
    const place = k.int('add.u32', this.w.base, row);
    const terms = k.registers('f', parts);
    k.when(within, () => terms.forEach((term, i) => k.run('ld.shared.f32', term, `[${from}+${4 * i}]`)));
    let y = terms.reduce((a, b) => k.float('add.f32', a, b));
    if (scale) y = k.float('mul.f32', y, scale);
    if (spec.residual) {
      const added = k.register('f');
      const at = k.place(this.ready!, row, 8);
      k.when(within, () => k.run('ld.shared.f32', added, `[${at}]`));
      y = k.float('add.f32', y, added);
    }
    const to = k.address(this.w.pointer('y'), place, 4);
    if (spec.activations) this.activate(row, place, within, y, to);
    else k.when(within, () => k.run('st.global.f32', `[${to}]`, y));
  }

  /** The gate with SiLU; convolution with SiLU, or step sizes and decays, stored behind all y. */
  private activate(row: string, place: string, within: string, y: string, at: string): void {
    const { k, spec } = this.w;
    const { first, limit, heads, taps, channels } = spec.activations!;
    const { channel, inside, step } = this.channel(place, within);
    const [known, factor] = k.registers('f', 2);
    const from = k.place(this.ready!, row, 8);
    k.when(within, () => k.run('ld.shared.v2.f32', `{${known}, ${factor}}`, `[${from}]`));
    const convolution = k.float('fma.rn.f32', y, factor!, known!);
    const gate = k.compare('lt.u32', place, first);
    const activated = k.silu(k.float('selp.f32', y, convolution, gate));
    let dt = k.softplus(k.float('add.f32', y, known!));
    if (limit[0] > 0) dt = k.float('max.f32', dt, limit[0]);
    if (Number.isFinite(limit[1])) dt = k.float('min.f32', dt, limit[1]);
    const shift = 4 * (spec.out - first);
    const rate = k.exp(k.float('min.f32', factor!, 80));
    const decay = k.exp(k.float('max.f32', k.float('mul.f32', dt, k.float('neg.f32', rate)), -87));
    const stored = k.float('selp.f32', activated, y, gate);
    k.when(within, () => k.run('st.global.f32', `[${at}]`, stored));
    const moves = taps > 1 ? this.moving(inside) : null;
    if (moves) {
      const context = this.context(k.set('d', 'mul.wide.s32', channel, 4));
      k.when(moves, () => k.run('st.global.f32', `[${context}+${4 * (taps - 2) * channels}]`, y));
    }
    k.when(inside, () => k.run('st.global.f32', `[${at}+${shift}]`, activated));
    k.when(step, () => {
      k.run('st.global.f32', `[${at}+${shift}]`, dt);
      k.run('st.global.f32', `[${at}+${shift + 4 * heads}]`, decay);
    });
  }
}

/** The kernel of a product, over the inputs of parametersOf and the result. */
export function rowPtxKernel(spec: RowProductSpec, tiling = rowPtxTiling(spec)): TritonKernel {
  return rowPtxWriter(spec, tiling).kernel(tiling.blocks);
}

/** The kernel as it is written. */
export function rowPtxWriter(spec: RowProductSpec, tiling = rowPtxTiling(spec)): PtxWriter {
  if (!rowPtxFits(spec, tiling)) throw new ArgumentError('rowPtxKernel: no kernel for these sizes', { spec, tiling });
  const parameters = [...parametersOf(spec), ['y', 'float32'] as const];
  const k = new PtxWriter(
    'row_product',
    parameters.map(([, dtype]) => dtype),
    tiling.warps,
  );
  const pointers = Object.fromEntries(parameters.map(([name], i) => [name, k.pointer(i)]));
  new RowPhase(new RowPtx(k, spec, tiling, pointers)).run();
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
