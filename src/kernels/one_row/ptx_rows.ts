/** How a product of one row in PTX reads rows of a matrix and multiplies them, by stored format. */
import { READ_ONCE } from '../../jit/custom_call/ptx.js';
import type { OneRowBlock } from './ptx_block.js';
import { GROUP_BYTES } from './ptx_tiling.js';
import type { PreparedVector } from './ptx_vector.js';

/** Two stages of registers for what a warp has of a row: one is multiplied while the other fills. */
export interface RowReader {
  /** Asks for the warp's next row into a stage. */
  ask(stage: number): void;
  /** What stays in registers for all rows. */
  begin(vector: PreparedVector): void;
  /** The lane's part of the product of the row in a stage, which is then asked to take the next row. */
  multiply(stage: number): string;
}

/** The rows of a kernel in their format. */
export function rowReader(w: OneRowBlock): RowReader {
  return w.spec.format.kind === 'codes' ? new CodeRows(w) : new PlainRows(w);
}

/** Where the warp's next row is, and whether there is one. */
class Next {
  private readonly row: string;

  constructor(private readonly w: OneRowBlock) {
    this.row = w.k.int('mov.u32', w.firstRow);
  }

  /** Pointer into rows of `bytes` each, at an offset of the lane. */
  at(pointer: string, bytes: number, offset: string): string {
    const { k } = this.w;
    const row = k.int('add.u32', this.w.base, this.row);
    const start = k.set('d', 'mad.wide.u32', row, bytes, pointer);
    const lane = k.set('d', 'cvt.u64.u32', offset);
    return k.set('d', 'add.s64', start, lane);
  }

  /** Whether there is a next row; goes on to the one after it. */
  take(): string {
    const { k } = this.w;
    const there = k.compare('lt.u32', this.row, this.w.count);
    k.run('add.u32', this.row, this.row, this.w.step);
    return there;
  }
}

/** Rows of bfloat16: eight values of a lane in each k-tile of 256. */
class PlainRows implements RowReader {
  private readonly stages: string[][][];
  private readonly next: Next;
  private readonly at: string;
  private readonly share: number;
  private readonly kTiles: number;
  private values = '';
  private factors: string[] = [];

  constructor(private readonly w: OneRowBlock) {
    const { k, spec, tiling } = w;
    this.share = spec.inner / tiling.splitK;
    this.kTiles = Math.ceil(this.share / 256);
    this.next = new Next(w);
    const offset = k.int('mad.lo.u32', w.split, this.share * 2, k.int('shl.b32', k.lane, 4));
    this.at = this.next.at(w.pointer('weights'), spec.inner * 2, offset);
    this.stages = [0, 1].map(() => Array.from({ length: this.kTiles }, () => k.registers('r', 4)));
    // a last k-tile of less than all lanes: the others multiply zeros
    if (this.rest < 32)
      for (const stage of this.stages) for (const x of stage[this.kTiles - 1]!) k.run('mov.u32', x, 0);
  }

  /** Lanes that have values in the last k-tile. */
  private get rest(): number {
    return (this.share - 256 * (this.kTiles - 1)) / 8;
  }

  ask(stage: number): void {
    const there = this.next.take();
    this.stages[stage]!.forEach((_, kTile) => this.load(stage, kTile, there));
    this.go();
  }

  private go(): void {
    this.w.k.run('add.s64', this.at, this.at, this.w.step * this.w.spec.inner * 2);
  }

  private load(stage: number, kTile: number, there: string): void {
    const { k } = this.w;
    const partial = kTile === this.kTiles - 1 && this.rest < 32;
    const own = partial ? k.set('p', 'and.pred', there, k.compare('lt.u32', k.lane, this.rest)) : there;
    const registers = this.stages[stage]![kTile]!;
    k.when(own, () => k.run(READ_ONCE, `{${registers.join(', ')}}`, `[${this.at}+${512 * kTile}]`));
  }

  begin(vector: PreparedVector): void {
    const { k, spec } = this.w;
    // the vector of a share begins with a k-tile, or with a lane of one: shares of less than a k-tile lie in one
    const begin = k.int('mul.lo.u32', this.w.split, this.share / 8);
    const lane = k.int('add.u32', begin, k.lane);
    const slot = k.int('mad.lo.u32', k.int('shr.u32', lane, 5), 64, k.int('and.b32', lane, 31));
    this.values = k.place(vector.values, slot, 16);
    if (vector.factors) {
      const span = spec.inner / spec.norm!.groups;
      const count = Math.max(1, this.share / span);
      const first = k.int('div.u32', k.int('mul.lo.u32', this.w.split, this.share), span);
      const from = k.place(vector.factors, first, 4);
      this.factors = Array.from({ length: count }, (_, i) => k.float('ld.shared.f32', `[${from}+${4 * i}]`));
    }
  }

  multiply(stage: number): string {
    const { k } = this.w;
    const there = this.next.take();
    const perNorm = this.kTiles / Math.max(1, this.factors.length);
    let sum: string | null = null;
    let own: string | null = null;
    for (let kTile = 0; kTile < this.kTiles; kTile++) {
      const products = [0, 1].map((half) => {
        const xs = k.registers('f', 4);
        k.run('ld.shared.v4.f32', `{${xs.join(', ')}}`, `[${this.values}+${1024 * kTile + 512 * half}]`);
        return xs;
      });
      this.stages[stage]![kTile]!.forEach((word, i) => {
        const [x, y] = products[i >> 1]!.slice(2 * (i & 1), 2 * (i & 1) + 2) as [string, string];
        const low = k.float('mov.b32', k.int('shl.b32', word, 16));
        const high = k.float('mov.b32', k.int('and.b32', word, '0xFFFF0000'));
        own = own ? k.float('fma.rn.f32', low, x, own) : k.float('mul.f32', low, x);
        own = k.float('fma.rn.f32', high, y, own);
      });
      this.load(stage, kTile, there);
      if (this.factors.length > 0 && (kTile + 1) % perNorm === 0) {
        const factor = this.factors[(kTile + 1) / perNorm - 1]!;
        sum = sum ? k.float('fma.rn.f32', own!, factor, sum) : k.float('mul.f32', own!, factor);
        own = null;
      }
    }
    this.go();
    return sum ?? own!;
  }
}

/** Rows of codes in groups of 128: four words of a lane in each k-tile of eight groups, with scale and zero of a group a lane. */
class CodeRows implements RowReader {
  private readonly stages: { codes: string[][]; scale: string; zero: string }[];
  private readonly next: Next;
  private readonly at: string;
  private readonly scaleAt: string;
  private readonly zeroAt: string;
  /** Bytes of a scale or zero. */
  private readonly size: number;
  private readonly groups: number;
  private readonly kTiles: number;
  private readonly own: string;
  /** Of each k-tile: the vector of the lane's words, [word][high even, high odd, low even, low odd], and the size of its steps. */
  private vectors: string[][][] = [];
  private steps: string[] = [];
  private total = '';

  constructor(private readonly w: OneRowBlock) {
    const { k, spec, tiling } = w;
    const all = spec.inner / 128;
    this.groups = all / tiling.splitK;
    this.kTiles = Math.ceil(this.groups / 8);
    this.next = new Next(w);
    const offset = k.int('mad.lo.u32', w.split, this.groups * 64, k.int('shl.b32', k.lane, 4));
    this.at = this.next.at(w.pointer('codes'), spec.inner / 2, offset);
    this.size = spec.format.kind === 'codes' && spec.format.levels === 'bfloat16' ? 2 : 4;
    const level = k.int('mul.lo.u32', k.int('mad.lo.u32', w.split, this.groups, k.lane), this.size);
    this.scaleAt = this.next.at(w.pointer('scale'), all * this.size, level);
    this.zeroAt = this.next.at(w.pointer('zero'), all * this.size, level);
    this.own = k.compare('lt.u32', k.lane, this.groups);
    this.stages = [0, 1].map(() => ({
      codes: Array.from({ length: this.kTiles }, () => k.registers('r', 4)),
      scale: k.int('mov.u32', 0),
      zero: k.int('mov.u32', 0),
    }));
    if (this.rest < 32)
      for (const { codes } of this.stages) for (const x of codes[this.kTiles - 1]!) k.run('mov.u32', x, 0);
  }

  /** Lanes that have codes in the last k-tile. */
  private get rest(): number {
    return 4 * (this.groups - 8 * (this.kTiles - 1));
  }

  ask(stage: number): void {
    const there = this.next.take();
    this.stages[stage]!.codes.forEach((_, kTile) => this.load(stage, kTile, there));
    this.loadLevels(stage, there);
    this.go();
  }

  private go(): void {
    const { k, spec, step } = this.w;
    k.run('add.s64', this.at, this.at, (step * spec.inner) / 2);
    for (const at of [this.scaleAt, this.zeroAt]) k.run('add.s64', at, at, (step * this.size * spec.inner) / 128);
  }

  private load(stage: number, kTile: number, there: string): void {
    const { k } = this.w;
    const partial = kTile === this.kTiles - 1 && this.rest < 32;
    const own = partial ? k.set('p', 'and.pred', there, k.compare('lt.u32', k.lane, this.rest)) : there;
    const registers = this.stages[stage]!.codes[kTile]!;
    k.when(own, () => k.run(READ_ONCE, `{${registers.join(', ')}}`, `[${this.at}+${512 * kTile}]`));
  }

  private loadLevels(stage: number, there: string): void {
    const { k } = this.w;
    const { scale, zero } = this.stages[stage]!;
    const read = this.size === 2 ? 'ld.global.nc.u16' : 'ld.global.nc.b32';
    const own = this.groups < 32 ? k.set('p', 'and.pred', there, this.own) : there;
    k.when(own, () => {
      k.run(read, scale, `[${this.scaleAt}]`);
      k.run(read, zero, `[${this.zeroAt}]`);
    });
  }

  begin(vector: PreparedVector): void {
    const { k, spec } = this.w;
    const first = k.int('mul.lo.u32', this.w.split, this.groups); // group of the part
    const group = k.int('add.u32', first, k.int('shr.u32', k.lane, 2));
    const words = k.place(k.place(vector.values, group, GROUP_BYTES), k.int('and.b32', k.lane, 3), 16);
    const stepAt = k.place(vector.steps, group, 4);
    const totalAt = k.place(vector.totals, k.int('add.u32', first, k.lane), 4);
    const span = spec.norm ? spec.inner / spec.norm.groups / 128 : 1;
    const factorAt = (of: string): string => k.place(vector.factors!, k.int('div.u32', of, span), 4);
    const scaled = (there: string, at: string, offset: number, of: string): string => {
      const value = k.float('mov.f32', 0);
      k.when(there, () => k.run('ld.shared.f32', value, `[${at}+${offset}]`));
      if (!vector.factors) return value;
      const factor = k.float('mov.f32', 0);
      const from = factorAt(of);
      k.when(there, () => k.run('ld.shared.f32', factor, `[${from}]`));
      return k.float('mul.f32', value, factor);
    };
    this.total = scaled(this.own, totalAt, 0, k.int('add.u32', first, k.lane));
    for (let kTile = 0; kTile < this.kTiles; kTile++) {
      const last = kTile === this.kTiles - 1;
      const there = k.compare('lt.u32', k.lane, last ? this.rest : 32);
      this.steps.push(scaled(there, stepAt, 32 * kTile, k.int('add.u32', group, 8 * kTile)));
      this.vectors.push(
        Array.from({ length: 4 }, (_, word) => {
          const xs = k.registers('r', 4);
          if (last && this.rest < 32) for (const x of xs) k.run('mov.u32', x, 0);
          const at = `[${words}+${8 * GROUP_BYTES * kTile + 64 * word}]`;
          k.when(there, () => k.run('ld.shared.v4.b32', `{${xs.join(', ')}}`, at));
          return xs;
        }),
      );
    }
  }

  multiply(stage: number): string {
    const { k } = this.w;
    const { codes, ...levels } = this.stages[stage]!;
    const there = this.next.take();
    const wide = (bits: string): string =>
      k.float('mov.b32', this.size === 2 ? k.int('shl.b32', bits, 16) : k.int('mov.u32', bits));
    const scale = wide(levels.scale);
    const least = k.float('fma.rn.f32', scale, k.float('mov.f32', -8), wide(levels.zero));
    let sum = k.float('mul.f32', least, this.total);
    codes.forEach((words, kTile) => {
      // even codes as they are, odd ones times 16: by high and by low byte of the vector
      const sums: (string | number)[] = [0, 0, 0, 0];
      words.forEach((word, i) => {
        const [evenHigh, oddHigh, evenLow, oddLow] = this.vectors[kTile]![i] as [string, string, string, string];
        const even = k.int('and.b32', word, '0x0F0F0F0F');
        const odd = k.int('and.b32', word, '0xF0F0F0F0');
        sums[0] = k.int('dp4a.u32.s32', even, evenHigh, sums[0]!);
        sums[1] = k.int('dp4a.u32.s32', even, evenLow, sums[1]!);
        sums[2] = k.int('dp4a.u32.s32', odd, oddHigh, sums[2]!);
        sums[3] = k.int('dp4a.u32.s32', odd, oddLow, sums[3]!);
      });
      this.load(stage, kTile, there);
      const even = k.int('mad.lo.s32', sums[0]!, 256, sums[1]!);
      const odd = k.int('shr.s32', k.int('mad.lo.s32', sums[2]!, 256, sums[3]!), 4);
      const product = k.float('cvt.rn.f32.s32', k.int('add.s32', even, odd));
      const from = k.int('add.u32', k.int('shr.u32', k.lane, 2), 8 * kTile);
      const own = k.set('f', 'shfl.sync.idx.b32', scale, from, 31, -1);
      sum = k.float('fma.rn.f32', product, k.float('mul.f32', own, this.steps[kTile]!), sum);
    });
    this.loadLevels(stage, there);
    this.go();
    return sum;
  }
}
