/**
 * The recurrence S ← decay·S + (x·dt) ⊗ B, y = S·C of a decoding step in PTX: a warp's rows of a state. States are read once, with all
 * of a warp's reads under way at a time, and written where they lie; the arithmetic is float32, and y is of the state before it is rounded.
 */
import type { PtxWriter } from '../../jit/custom_call/ptx.js';
import { perLane, stateTileRows, type StateTileSpec } from './spec.js';

const READ = 'ld.global.L1::no_allocate.v4.b32';
const WRITE = 'st.global.L1::no_allocate.v4.b32';

/** A warp's rows of a state: row `load·(32/lanes) + lane/lanes`, of which each lane holds some columns. */
export class StateTile {
  /** The row that a lane speaks for: it gets its y, and gives its x·dt. */
  readonly own: string;
  /** Whether no lane before it speaks for the same row. */
  readonly speaks: string;
  /** Rows. */
  readonly count: number;
  private readonly lanes: number;
  private readonly each: number;
  private readonly column: string;
  private readonly words: string[][];

  constructor(
    private readonly k: PtxWriter,
    private readonly spec: StateTileSpec,
  ) {
    this.each = perLane(spec);
    this.lanes = spec.stateSize / this.each;
    this.count = stateTileRows(spec);
    const { loads } = spec;
    const within = k.int('and.b32', k.lane, this.lanes - 1);
    this.column = k.int('mul.lo.u32', within, this.each);
    // sums over the lanes of a row end with one row for each `spread` lanes
    const spread = this.lanes / loads;
    const load = k.int('shr.u32', within, Math.log2(spread));
    const side = k.int('shr.u32', k.lane, Math.log2(this.lanes));
    this.own = k.int('mad.lo.u32', load, 32 / this.lanes, side);
    this.speaks = k.compare('eq.u32', k.int('and.b32', k.lane, spread - 1), 0);
    this.words = Array.from({ length: loads }, () => k.registers('r', 4));
  }

  /** Where a lane's part begins. @param at address of the warp's first row */
  place(at: string): string {
    return this.k.address(at, this.k.lane, 16);
  }

  /** Asks for the rows. @param place see place() */
  ask(place: string): void {
    this.words.forEach((words, load) => this.k.run(READ, `{${words.join(', ')}}`, `[${place}+${512 * load}]`));
  }

  /**
   * Numbers of the state's columns that the lane needs, such as B.
   * @param at address of a vector of n floats
   */
  columns(at: string): string[] {
    const { k } = this;
    const from = k.address(at, this.column, 4);
    const all = k.registers('f', this.each);
    for (let i = 0; i < this.each; i += 4)
      k.run('ld.global.nc.v4.f32', `{${all.slice(i, i + 4).join(', ')}}`, `[${from}+${4 * i}]`);
    return all;
  }

  /**
   * The next state, in place of the one asked for.
   * @param scaled x·dt of the lane's own row @param B, C see columns()
   * @returns y of the lane's own row
   */
  advance(decay: string, scaled: string, B: readonly string[], C: readonly string[]): string {
    const { k } = this;
    const { loads } = this.spec;
    const first = k.int('and.b32', k.lane, -this.lanes); // lane that speaks for the side's first load
    const sums = this.words.map((words, load) => {
      const from = k.int('add.u32', first, load * (this.lanes / loads));
      const x = k.set('f', 'shfl.sync.idx.b32', scaled, from, 31, -1);
      let sum: string | null = null;
      const next = this.widen(words).map((old, i) => {
        const value = k.float('fma.rn.f32', old, decay, k.float('mul.f32', x, B[i]!));
        sum = sum ? k.float('fma.rn.f32', value, C[i]!, sum) : k.float('mul.f32', value, C[i]!);
        return value;
      });
      this.round(next, words);
      return sum!;
    });
    return this.gather(sums);
  }

  /** Writes the rows where the condition holds. */
  store(place: string, when: string): void {
    const { k } = this;
    k.when(when, () =>
      this.words.forEach((words, load) => k.run(WRITE, `[${place}+${512 * load}]`, `{${words.join(', ')}}`)),
    );
  }

  private widen(words: readonly string[]): string[] {
    const { k, spec } = this;
    if (spec.dtype === 'float32') return words.map((word) => k.float('mov.b32', word));
    return words.flatMap((word) => [
      k.float('mov.b32', k.int('shl.b32', word, 16)),
      k.float('mov.b32', k.int('and.b32', word, '0xFFFF0000')),
    ]);
  }

  private round(values: readonly string[], words: readonly string[]): void {
    const { k, spec } = this;
    words.forEach((word, i) => {
      if (spec.dtype === 'float32') k.run('mov.b32', word, values[i]!);
      else k.run('cvt.rn.bf16x2.f32', word, values[2 * i + 1]!, values[2 * i]!);
    });
  }

  /** Sums over the lanes of each row: lanes hand on the half of their sums that the other one speaks for. */
  private gather(sums: readonly string[]): string {
    const { k } = this;
    let own = [...sums];
    for (let step = this.lanes / 2; step >= 1; step /= 2) {
      const other = (x: string): string => k.set('f', 'shfl.sync.bfly.b32', x, step, 31, -1);
      const half = own.length / 2;
      if (half < 1) {
        own = [k.float('add.f32', own[0]!, other(own[0]!))];
        continue;
      }
      const upper = k.compare('ne.u32', k.int('and.b32', k.lane, step), 0);
      own = own.slice(0, half).map((low, i) => {
        const high = own[half + i]!;
        const given = k.float('selp.f32', low, high, upper);
        return k.float('add.f32', k.float('selp.f32', high, low, upper), other(given));
      });
    }
    return own[0]!;
  }
}
