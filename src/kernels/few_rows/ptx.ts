/**
 * A matrix of bfloat16 times a few rows of bfloat16 in PTX, by the card's matrix instructions: weights go straight from memory into
 * registers, once, and rows through shared memory, chunk by chunk. Results are float32, and what follows the product is in the kernel.
 */
import { ArgumentError } from '../../base/errors.js';
import { writeEpilogue, prefetchEpilogue } from './ptx_epilogue.js';
import {
  fewRowsParameters,
  squarePartials,
  fewRowsFits,
  type FewRowsSpec,
  type FewRowsTiling,
  fewRowsTiling,
  pitchOf,
  sharedOf,
  tilesOf,
  warpsOf,
} from './spec.js';
import { PtxWriter, READ_ONCE } from '../../jit/custom_call/ptx.js';
import type { TritonKernel } from '../../jit/custom_call/triton.js';

/** A kernel in the making: sizes, what the parameters point to, and what all its parts share. */
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
  readonly part: string;
  /** Whether the warp has no rows of the matrix; null where all have. */
  readonly idle: string | null;
  /** Shared memory: chunks, then results; and factors of the norm. */
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
    const types = parameters.map(([, dtype]) => dtype);
    const k = (this.k = new PtxWriter(spec.given ? 'few_rows_epilogue' : 'few_rows_product', types, this.warps));
    if (spec.given) {
      this.base = k.int('shl.b32', k.block, 5);
      this.count = k.int('min.u32', k.int('sub.s32', spec.out, this.base), 32);
      this.round = this.part = this.tile = this.shared = '';
      this.idle = null;
      this.factors = spec.norm ? k.array(4 * spec.rows) : null;
      return;
    }
    // blocks begin at different channels, and so read different rows of memory at a time
    const turn = k.int('div.u32', k.int('mul.lo.u32', k.block, this.rounds), tiling.blocks);
    this.round = k.int('min.u32', turn, this.rounds - 1);
    ({ base: this.base, count: this.count } = k.share(spec.out, tiling.blocks));
    this.part = k.int('and.b32', k.warp, tiling.parts - 1);
    this.tile = k.int('shr.u32', k.warp, Math.log2(tiling.parts));
    const tiles = tilesOf(spec, tiling);
    this.idle = tiles * tiling.parts < this.warps ? k.compare('ge.u32', this.tile, tiles) : null;
    this.shared = k.array(sharedOf(spec, tiling));
    this.factors = spec.norm ? k.array(4 * spec.rows) : null;
  }

  pointer(name: string): string {
    return this.k.pointer(this.names.indexOf(name));
  }

  /** Chunks that weights are under way of, as often as a row of the matrix has them. */
  get rounds(): number {
    return this.spec.inner / (32 * this.tiling.chunk * this.tiling.ahead);
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
  get parts(): number {
    return squarePartials(this.spec, this.tiling);
  }
}

const MULTIPLY = 'mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32';

/** A warp's 16 rows of the matrix: of each eight of them a lane has 16 bytes of row lane/4 in each piece. */
class Weights {
  /** By place in a round of `ahead` chunks: of each eight. */
  private readonly slots: string[][][];
  /** Where the round that is asked for next begins, of the lane's first row, and its number. */
  private readonly at: string;
  private readonly number: string;
  private readonly there: string[];

  constructor(private readonly w: FewRowsBlock) {
    const { k, spec, tiling } = w;
    const own = k.int('mad.lo.u32', w.tile, 16, k.int('shr.u32', k.lane, 2));
    const column = k.int('mul.lo.u32', k.int('and.b32', k.lane, 3), 16);
    const offset = k.set('d', 'cvt.u64.u32', k.int('mad.lo.u32', w.part, 64, column));
    const from = k.set('d', 'mad.wide.u32', k.int('add.u32', w.base, own), 2 * spec.inner, w.pointer('weights'));
    this.number = k.int('mov.u32', w.round);
    this.at = k.address(k.set('d', 'add.s64', from, offset), w.round, this.roundBytes);
    this.there = [0, 1].map((eight) => k.compare('lt.u32', k.int('add.u32', own, 8 * eight), w.count));
    this.slots = Array.from({ length: (tiling.ahead * tiling.chunk) / tiling.parts }, () =>
      this.there.map(() => k.registers('r', 4)),
    );
    for (const slot of this.slots) for (const x of slot.flat()) k.run('mov.u32', x, 0);
  }

  private get roundBytes(): number {
    const { tiling } = this.w;
    return 64 * tiling.ahead * tiling.chunk;
  }

  /** Asks for all of the first round. */
  begin(): void {
    this.slots.forEach((_, slot) => this.load(slot, this.there));
    this.go();
  }

  /** Conditions for asking for the next round, of which there is one where `more` holds. */
  next(more: string): string[] {
    return this.there.map((row) => this.w.k.set('p', 'and.pred', row, more));
  }

  /** Asks for a place of the next round. */
  load(slot: number, when: readonly string[]): void {
    const { k, tiling, spec } = this.w;
    const offset = 64 * slot * tiling.parts;
    this.slots[slot]!.forEach((words, eight) => {
      const at = `[${this.at}+${offset + 16 * eight * spec.inner}]`;
      k.when(when[eight]!, () => k.run(READ_ONCE, `{${words.join(', ')}}`, at));
    });
  }

  /** All of the next round is asked for. */
  go(): void {
    this.w.ring(this.at, 'add.s64', this.number, this.roundBytes, this.w.rounds);
  }

  /** Fragments of a place for both halves of a piece. Channels are permuted within it, as those of the rows are. */
  fragments(slot: number): string[][] {
    const [one, other] = this.slots[slot] as [string[], string[]];
    return [0, 2].map((i) => [one[i]!, other[i]!, one[i + 1]!, other[i + 1]!]);
  }
}

/** Chunks of rows on their way from memory to shared memory, each thread 16 bytes at a time, in a ring of buffers. */
class Rows {
  private readonly from: string;
  /** Number of the chunk that is asked for next. */
  private readonly chunk: string;
  /** Where the thread's next part goes, and where the lane's part of the chunk to multiply is. */
  private readonly to: string;
  private readonly at: string;
  private readonly bytes: number;
  /** Buffers that were asked for, and that were read, since the first one; and chunks that nobody asked for. */
  private readonly asked: string;
  private readonly read: string;
  private readonly left: string;

  constructor(private readonly w: FewRowsBlock) {
    const { k, spec, tiling } = w;
    this.bytes = tiling.chunk * spec.rows * 64;
    this.asked = k.int('mov.u32', 0);
    this.read = k.int('mov.u32', 0);
    this.left = k.int('mov.u32', spec.inner / (32 * tiling.chunk));
    this.chunk = k.int('mul.lo.u32', w.round, tiling.ahead);
    this.from = k.address(k.address(w.pointer('x'), this.chunk, this.bytes), k.thread, 16);
    this.to = k.place(w.shared, k.thread, 16);
    this.at = k.place(k.int('mad.lo.u32', k.lane, 16, w.shared), w.part, 64 * spec.rows);
  }

  /** Asks for the next chunk, if there is one. */
  ask(): void {
    const { k, threads } = this.w;
    const when = k.compare('gt.u32', this.left, 0);
    for (let at = 0; at < this.bytes; at += 16 * threads) {
      const rest = (this.bytes - at) / 16;
      const guard = rest < threads ? k.set('p', 'and.pred', k.compare('lt.u32', k.thread, rest), when) : when;
      k.when(guard, () => k.run('cp.async.cg.shared.global', `[${this.to}+${at}]`, `[${this.from}+${at}]`, 16));
    }
    k.run('cp.async.commit_group');
    this.w.ring(this.from, 'add.s64', this.chunk, this.bytes, this.w.rounds * this.w.tiling.ahead);
    k.when(when, () => k.run('add.u32', this.left, this.left, -1));
    this.w.ring(this.to, 'add.u32', this.asked, this.bytes, this.w.tiling.buffers);
  }

  /** Waits for what this thread asked for of the chunk that comes next. */
  wait(): void {
    this.w.k.run('cp.async.wait_group', this.w.tiling.buffers - 2);
  }

  /** Of eight rows, what a lane multiplies of a piece of the chunk. @param turn of the warp's pieces in a chunk */
  load(turn: number, eight: number): string[] {
    const { k, spec, tiling } = this.w;
    const offset = turn * tiling.parts * 64 * spec.rows + 512 * eight;
    const words = k.registers('r', 4);
    k.run('ld.shared.v4.b32', `{${words.join(', ')}}`, `[${this.at}+${offset}]`);
    return words;
  }

  /** The chunk is multiplied. */
  done(): void {
    this.w.ring(this.at, 'add.u32', this.read, this.bytes, this.w.tiling.buffers);
  }
}

/** Rows whose factors a warp works out at a time. */
const FACTORS = 4;

/** Factors of the norm, 1 / sqrt(mean square + epsilon), into shared memory. */
function prepareNorm(w: FewRowsBlock): void {
  const { k, spec, factors } = w;
  if (!spec.norm || !factors) return;
  const { parts, epsilon } = spec.norm;
  const lead = k.compare('eq.u32', k.lane, 0);
  for (let begin = 0; begin < spec.rows; begin += FACTORS * w.warps) {
    const starts = Array.from({ length: FACTORS }, (_, i) => begin + i * w.warps).filter((row) => row < spec.rows);
    const all = starts.map((start) => {
      const row = k.int('add.u32', k.warp, start);
      const there = k.compare('lt.u32', row, spec.rows);
      const from = k.address(k.set('d', 'mad.wide.u32', row, 4 * parts, w.pointer('squares')), k.lane, 4);
      const terms: string[] = [];
      for (let at = 0; at < parts; at += 32) {
        const term = k.float('mov.f32', 0);
        const own = parts - at < 32 ? k.set('p', 'and.pred', there, k.compare('lt.u32', k.lane, parts - at)) : there;
        k.when(own, () => k.run('ld.global.nc.f32', term, `[${from}+${4 * at}]`));
        terms.push(term);
      }
      return { row, there, terms };
    });
    for (const { row, there, terms } of all) {
      const sum = k.across(
        'add.f32',
        terms.reduce((a, b) => k.float('add.f32', a, b)),
      );
      const mean = k.float('fma.rn.f32', sum, 1 / spec.inner, k.float('mov.f32', epsilon));
      const factor = k.float('rsqrt.approx.f32', mean);
      const to = k.place(factors, row, 4);
      k.when(k.set('p', 'and.pred', lead, there), () => k.run('st.shared.f32', `[${to}]`, factor));
    }
  }
}

/** A lane's results: of each eight of the given rows, four. */
type Sums = string[][];

/** Puts a warp's results into shared memory, [parts][rows][pitch]. */
function putResults(w: FewRowsBlock, sums: Sums): void {
  const { k, spec, pitch } = w;
  const column = k.int('shl.b32', k.int('and.b32', k.lane, 3), 1); // of the rows
  const row = k.int('mad.lo.u32', w.part, spec.rows, column);
  const own = k.int('mad.lo.u32', w.tile, 16, k.int('shr.u32', k.lane, 2));
  const to = k.place(w.shared, k.int('mad.lo.u32', row, pitch, own), 4);
  const put = (): void =>
    sums.forEach((four, eight) =>
      four.forEach((x, i) => {
        // results 0 and 1 are of two rows side by side, 2 and 3 the same of the matrix' row 8 below
        const most = spec.rows - 8 * eight - (i & 1);
        if (most <= 0) return;
        const there = most < 8 ? k.compare('lt.u32', column, most) : null;
        const at = `[${to}+${4 * ((8 * eight + (i & 1)) * pitch + 8 * (i >> 1))}]`;
        k.when(there, () => k.run('st.shared.f32', at, x));
      }),
    );
  if (w.idle) k.unless(w.idle, put);
  else put();
}

/** The kernel, over fewRowsParameters. */
export function fewRowsKernel(spec: FewRowsSpec, tiling = fewRowsTiling(spec)): TritonKernel {
  return fewRowsWriter(spec, tiling).kernel(tiling.blocks);
}

/** The kernel as it is written. */
export function fewRowsWriter(spec: FewRowsSpec, tiling = fewRowsTiling(spec)): PtxWriter {
  if (!fewRowsFits(spec, tiling)) throw new ArgumentError('fewRowsKernel: no kernel for these sizes', { spec, tiling });
  const w = new FewRowsBlock(spec, tiling);
  if (!spec.given) {
    multiply(w);
    return w.k;
  }
  prefetchEpilogue(w);
  prepareNorm(w);
  w.k.barrier();
  writeEpilogue(w);
  return w.k;
}

function multiply(w: FewRowsBlock): void {
  const { k, spec, tiling } = w;
  const { chunk, parts, ahead } = tiling;
  const weights = new Weights(w);
  weights.begin();
  const rows = new Rows(w);
  for (let i = 1; i < tiling.buffers; i++) rows.ask();
  prefetchEpilogue(w);
  prepareNorm(w);
  const eights = Math.ceil(spec.rows / 8);
  const sums: Sums = Array.from({ length: eights }, () => Array.from({ length: 4 }, () => k.float('mov.f32', 0)));
  const left = k.int('mov.u32', w.rounds);
  k.repeat(() => {
    const more = k.compare('gt.u32', left, 1);
    const next = weights.next(more);
    for (let i = 0; i < ahead; i++) {
      // the chunk is there, and nobody reads the one before any more
      rows.wait();
      k.barrier();
      rows.ask();
      const one = (turn: number): void => {
        const slot = (i * chunk) / parts + turn;
        const others = Array.from({ length: eights }, (_, eight) => rows.load(turn, eight));
        weights.fragments(slot).forEach((four, half) =>
          sums.forEach((own, eight) => {
            const result = `{${own.join(', ')}}`;
            const pair = `{${others[eight]!.slice(2 * half, 2 * half + 2).join(', ')}}`;
            k.run(MULTIPLY, result, `{${four.join(', ')}}`, pair, result);
          }),
        );
        weights.load(slot, next);
      };
      const turns = (): void => Array.from({ length: chunk / parts }).forEach((_, turn) => one(turn));
      if (w.idle) k.unless(w.idle, turns);
      else turns();
      rows.done();
    }
    weights.go();
    k.run('add.u32', left, left, -1);
    return more;
  });
  k.run('cp.async.wait_group', 0);
  k.barrier();
  putResults(w, sums);
  k.barrier();
  writeEpilogue(w);
}
