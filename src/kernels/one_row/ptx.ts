/**
 * Row products (row_product.ts) in PTX, for matrices of bfloat16 and of four-bit codes. One block for each multiprocessor: it asks for its
 * first rows, makes the vector ready while they are on their way, and then always has a row ahead of the one that it multiplies.
 */
import { ArgumentError } from '../../base/errors.js';
import { multiprocessors } from '../../runtime/index.js';
import { PtxWriter, SHARED_BYTES } from '../../jit/custom_call/ptx.js';
import { preparer } from './ptx_vector.js';
import { rowReader } from './ptx_rows.js';
import { parametersOf, type OneRowSpec } from './spec.js';
import type { TritonKernel } from '../../jit/custom_call/triton.js';

/** How a row product is shared out: a matter of speed only. */
export interface OneRowPtxTiling {
  /** Blocks: as many as the card runs at a time. */
  blocks: number;
  warps: number;
  /** Warps that share a row. */
  parts: number;
}

/** A kernel in the making: sizes, what the parameters point to, and what all its parts share. */
export class OneRowBlock {
  readonly k: PtxWriter;
  readonly names: string[];
  /** Which of the warps of a row this one is, and which of the block's rows it begins with. */
  readonly part: string;
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
    const { blocks, parts } = tiling;
    this.part = k.int('and.b32', k.warp, parts - 1);
    this.firstRow = k.int('shr.u32', k.warp, Math.log2(parts));
    ({ base: this.base, count: this.count } = k.share(spec.out, blocks));
  }

  pointer(name: string): string {
    return this.k.pointer(this.names.indexOf(name));
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

/** Pieces that were fastest on an H100. @param processors multiprocessors of the card; where that is 0, not known, those of an H100 */
export function oneRowPtxTiling(spec: OneRowSpec, processors = multiprocessors()): OneRowPtxTiling {
  const { inner, out, format, epilogue, residual } = spec;
  const warps = 16;
  const atOnce = processors || 132;
  // a block ends a row a thread, or keeps the sums of twice as many; small cards run several blocks one after another
  const rows = (epilogue || residual ? 1 : 2) * 32 * warps;
  const blocks = atOnce * Math.ceil(out / (atOnce * rows));
  // values that a warp can hold of a row, twice
  const most = format.kind === 'codes' ? 4096 : 2560;
  let parts = 1;
  while (inner / parts > most) parts *= 2;
  // of few rows no warp stays idle
  if ((warps / parts) * blocks > 2 * out && inner % (512 * parts) === 0) parts *= 2;
  return { blocks, warps, parts };
}

/** Whether the kernel can be written for these sizes. */
export function oneRowPtxFits(spec: OneRowSpec, tiling = oneRowPtxTiling(spec)): boolean {
  const { out, inner, format, norm, epilogue, residual } = spec;
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
  if ((epilogue || residual) && rows > 32 * warps) return false;
  const vector = format.kind === 'codes' ? (inner / 128) * 328 : Math.ceil(inner / 256) * 1024;
  return vector + rows * (4 * parts + 12) + 1024 < SHARED_BYTES && out * inner < 2 ** 31;
}

/** Sums of rows, what is added to them, and what follows: one thread a row. */
class Ending {
  private readonly sums: string;
  private readonly ready: string | null = null;
  private readonly within: string;
  private readonly place: string;

  constructor(private readonly w: OneRowBlock) {
    const { k, spec, tiling } = w;
    this.sums = k.array(4 * tiling.parts * w.rows);
    if (spec.epilogue) this.ready = k.array(8 * w.rows); // what is known, and the factor of the row's product or A_log
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
    const { first, channels } = spec.epilogue!;
    const channel = k.int('sub.s32', row, first);
    const both = (a: string): string => k.set('p', 'and.pred', a, within);
    const begun = both(k.compare('ge.s32', channel, 0));
    const small = k.compare('lt.s32', channel, channels);
    const inside = k.set('p', 'and.pred', begun, small);
    const step = both(k.compare('ge.s32', channel, channels));
    return { channel, inside, step };
  }

  /** What needs no product, on its way before there is any: of a channel the convolution's older taps, of a step size its bias. */
  prepare(): void {
    const { k, spec } = this.w;
    const { epilogue: after } = spec;
    if (!after) return;
    const { channel, inside, step } = this.channel(this.place, this.within);
    const known = k.float('mov.f32', 0);
    const factor = k.float('mov.f32', 0);
    const tapAt = k.set('d', 'add.s64', this.w.pointer('taps'), k.set('d', 'mul.wide.s32', channel, 4 * after.taps));
    const contextAt = k.set('d', 'mul.wide.s32', channel, 4);
    const start = k.int('ld.global.nc.b32', `[${this.w.pointer('place')}]`);
    const context = k.set('d', 'add.s64', k.address(this.w.pointer('context'), start, 4), contextAt);
    for (let i = 0; i < after.taps; i++) {
      const [tap, old] = [k.register('f'), k.register('f')];
      k.when(inside, () => {
        k.run('ld.global.nc.f32', tap, `[${tapAt}+${4 * i}]`);
        if (i === after.taps - 1) return k.run('mov.f32', factor, tap);
        k.run('ld.global.nc.f32', old, `[${context}+${4 * i * after.channels}]`);
        k.run('fma.rn.f32', known, tap, old, known);
      });
    }
    if (after.bias) {
      const at = k.set('d', 'add.s64', this.w.pointer('bias'), contextAt);
      const bias = k.register('f');
      k.when(inside, () => {
        k.run('ld.global.nc.f32', bias, `[${at}]`);
        k.run('add.f32', known, known, bias);
      });
    }
    const at = k.set('d', 'add.s64', this.w.pointer('dt_bias'), contextAt);
    const rateAt = k.set('d', 'add.s64', this.w.pointer('A_log'), contextAt);
    k.when(step, () => {
      k.run('ld.global.nc.f32', known, `[${at}+${-4 * after.channels}]`);
      k.run('ld.global.nc.f32', factor, `[${rateAt}+${-4 * after.channels}]`);
    });
    const to = k.place(this.ready!, k.thread, 8);
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
      const at = k.address(this.w.pointer('residual'), place, 4);
      k.when(within, () => k.run('ld.global.nc.f32', added, `[${at}]`));
      y = k.float('add.f32', y, added);
    }
    const to = k.address(this.w.pointer('y'), place, 4);
    if (spec.epilogue) this.activate(row, place, within, y, to);
    else k.when(within, () => k.run('st.global.f32', `[${to}]`, y));
  }

  /** The gate with SiLU; convolution with SiLU, or step sizes and decays, stored behind all y. */
  private activate(row: string, place: string, within: string, y: string, at: string): void {
    const { k, spec } = this.w;
    const { first, limit, heads } = spec.epilogue!;
    const { inside, step } = this.channel(place, within);
    const [known, factor] = k.registers('f', 2);
    const from = k.place(this.ready!, row, 8);
    k.when(within, () => k.run('ld.shared.v2.f32', `{${known}, ${factor}}`, `[${from}]`));
    const convolution = k.float('fma.rn.f32', y, factor!, known!);
    const gate = k.compare('lt.u32', place, first);
    const activated = k.silu(k.float('selp.f32', y, convolution, gate));
    const dt = k.stepSize(k.float('add.f32', y, known!), limit);
    const shift = 4 * (spec.out - first);
    const decay = k.decay(factor!, dt);
    const stored = k.float('selp.f32', activated, y, gate);
    k.when(within, () => k.run('st.global.f32', `[${at}]`, stored));
    k.when(inside, () => k.run('st.global.f32', `[${at}+${shift}]`, activated));
    k.when(step, () => {
      k.run('st.global.f32', `[${at}+${shift}]`, dt);
      k.run('st.global.f32', `[${at}+${shift + 4 * heads}]`, decay);
    });
  }
}

/** The kernel of a product, over the inputs of parametersOf and the result. */
export function oneRowPtxKernel(spec: OneRowSpec, tiling = oneRowPtxTiling(spec)): TritonKernel {
  return oneRowPtxWriter(spec, tiling).kernel(tiling.blocks);
}

/** The kernel as it is written. */
export function oneRowPtxWriter(spec: OneRowSpec, tiling = oneRowPtxTiling(spec)): PtxWriter {
  if (!oneRowPtxFits(spec, tiling))
    throw new ArgumentError('oneRowPtxKernel: no kernel for these sizes', { spec, tiling });
  const w = new OneRowBlock(spec, tiling);
  const { k } = w;
  const rows = rowReader(w);
  rows.ask(0);
  rows.ask(1);
  const ending = new Ending(w);
  const vector = preparer(w);
  vector.write();
  ending.prepare();
  k.barrier();
  const scale = vector.finish();
  rows.begin(vector);
  const row = k.int('mov.u32', w.firstRow);
  k.unless(k.compare('ge.u32', row, w.count), () => {
    const multiply = (buffer: number): void => {
      const sum = k.across('add.f32', rows.multiply(buffer));
      const to = ending.sum(row);
      k.when(k.compare('eq.u32', k.lane, 0), () => k.run('st.shared.f32', `[${to}]`, sum));
      k.run('add.u32', row, row, w.step);
    };
    k.repeat(() => {
      multiply(0);
      k.unless(k.compare('ge.u32', row, w.count), () => multiply(1));
      return k.compare('lt.u32', row, w.count);
    });
  });
  k.barrier();
  ending.finish(scale);
  return k;
}
