/**
 * The operands of a product of few rows in PTX: weights go straight from memory into registers, once, and rows through shared memory,
 * k-tile by k-tile, in as many pipeline stages as the tiling says.
 */
import { READ_ONCE } from '../../jit/custom_call/ptx.js';
import type { FewRowsBlock } from './ptx_block.js';

/** A warp's 16 rows of the matrix: of each eight of them a lane has 16 bytes of row lane/4 in each k-block. */
export class Weights {
  /** By place in a round of `tilesAhead` k-tiles: of each eight. */
  private readonly slots: string[][][];
  /** Where the round that is asked for next begins, of the lane's first row, and its number. */
  private readonly at: string;
  private readonly number: string;
  private readonly there: string[];

  constructor(private readonly w: FewRowsBlock) {
    const { k, spec, tiling } = w;
    const own = k.int('mad.lo.u32', w.tile, 16, k.int('shr.u32', k.lane, 2));
    const column = k.int('mul.lo.u32', k.int('and.b32', k.lane, 3), 16);
    const offset = k.set('d', 'cvt.u64.u32', k.int('mad.lo.u32', w.kPart, 64, column));
    const from = k.set('d', 'mad.wide.u32', k.int('add.u32', w.base, own), 2 * spec.inner, w.pointer('weights'));
    this.number = k.int('mov.u32', w.round);
    this.at = k.address(k.set('d', 'add.s64', from, offset), w.round, this.roundBytes);
    this.there = [0, 1].map((eight) => k.compare('lt.u32', k.int('add.u32', own, 8 * eight), w.count));
    this.slots = Array.from({ length: (tiling.tilesAhead * tiling.kTile) / tiling.splitK }, () =>
      this.there.map(() => k.registers('r', 4)),
    );
    for (const slot of this.slots) for (const x of slot.flat()) k.run('mov.u32', x, 0);
  }

  private get roundBytes(): number {
    const { tiling } = this.w;
    return 64 * tiling.tilesAhead * tiling.kTile;
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
    const offset = 64 * slot * tiling.splitK;
    this.slots[slot]!.forEach((words, eight) => {
      const at = `[${this.at}+${offset + 16 * eight * spec.inner}]`;
      k.when(when[eight]!, () => k.run(READ_ONCE, `{${words.join(', ')}}`, at));
    });
  }

  /** All of the next round is asked for. */
  go(): void {
    this.w.ring(this.at, 'add.s64', this.number, this.roundBytes, this.w.rounds);
  }

  /** Fragments of a place for both halves of a k-block. Channels are permuted within it, as those of the rows are. */
  fragments(slot: number): string[][] {
    const [one, other] = this.slots[slot] as [string[], string[]];
    return [0, 2].map((i) => [one[i]!, other[i]!, one[i + 1]!, other[i + 1]!]);
  }
}

/** K-tiles of rows on their way from memory to shared memory, each thread 16 bytes at a time, in a ring of stages. */
export class Rows {
  private readonly from: string;
  /** Number of the k-tile that is asked for next. */
  private readonly kTile: string;
  /** Where the thread's next bytes go, and where the lane's part of the k-tile to multiply is. */
  private readonly to: string;
  private readonly at: string;
  private readonly bytes: number;
  /** Stages that were asked for, and that were read, since the first one; and k-tiles that nobody asked for. */
  private readonly asked: string;
  private readonly read: string;
  private readonly left: string;

  constructor(private readonly w: FewRowsBlock) {
    const { k, spec, tiling } = w;
    this.bytes = tiling.kTile * spec.rows * 64;
    this.asked = k.int('mov.u32', 0);
    this.read = k.int('mov.u32', 0);
    this.left = k.int('mov.u32', spec.inner / (32 * tiling.kTile));
    this.kTile = k.int('mul.lo.u32', w.round, tiling.tilesAhead);
    this.from = k.address(k.address(w.pointer('x'), this.kTile, this.bytes), k.thread, 16);
    this.to = k.place(w.shared, k.thread, 16);
    this.at = k.place(k.int('mad.lo.u32', k.lane, 16, w.shared), w.kPart, 64 * spec.rows);
  }

  /** Asks for the next k-tile, if there is one. */
  ask(): void {
    const { k, threads } = this.w;
    const when = k.compare('gt.u32', this.left, 0);
    for (let at = 0; at < this.bytes; at += 16 * threads) {
      const rest = (this.bytes - at) / 16;
      const guard = rest < threads ? k.set('p', 'and.pred', k.compare('lt.u32', k.thread, rest), when) : when;
      k.when(guard, () => k.run('cp.async.cg.shared.global', `[${this.to}+${at}]`, `[${this.from}+${at}]`, 16));
    }
    k.run('cp.async.commit_group');
    this.w.ring(this.from, 'add.s64', this.kTile, this.bytes, this.w.rounds * this.w.tiling.tilesAhead);
    k.when(when, () => k.run('add.u32', this.left, this.left, -1));
    this.w.ring(this.to, 'add.u32', this.asked, this.bytes, this.w.tiling.stages);
  }

  /** Waits for what this thread asked for of the k-tile that comes next. */
  wait(): void {
    this.w.k.run('cp.async.wait_group', this.w.tiling.stages - 2);
  }

  /** Of eight rows, what a lane multiplies of a k-block of the k-tile. @param turn of the warp's k-blocks in a k-tile */
  load(turn: number, eight: number): string[] {
    const { k, spec, tiling } = this.w;
    const offset = turn * tiling.splitK * 64 * spec.rows + 512 * eight;
    const words = k.registers('r', 4);
    k.run('ld.shared.v4.b32', `{${words.join(', ')}}`, `[${this.at}+${offset}]`);
    return words;
  }

  /** The k-tile is multiplied. */
  done(): void {
    this.w.ring(this.at, 'add.u32', this.read, this.bytes, this.w.tiling.stages);
  }
}
