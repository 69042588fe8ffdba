/** The vector of a product of one row in PTX: its norm, and in shared memory as the matrix' format wants it. */
import type { OneRowBlock } from './ptx_block.js';
import { GROUP_BYTES, passesOf, perThread } from './ptx_tiling.js';

/** Codes are multiplied in integers: the vector is rounded to this many steps of the largest in its group, in two bytes. */
const STEPS = 127 * 256;
/** Where the vector is in shared memory. */
export interface PreparedVector {
  /** Writes it, each thread some channels; a barrier follows. */
  write(): void;
  /** After it: factors of several norms become ready. @returns the factor of all products, where there is one norm */
  finish(): string | null;
  /** bfloat16: floats, [k-tiles of 256][halves of 8 channels][lanes][4]. Codes: see writeCodes(). */
  readonly values: string;
  /** Codes: by group, the size of a step, and the sum of its channels. */
  readonly steps: string;
  readonly totals: string;
  /** Factors of norms, by norm; null where there is one or none. */
  readonly factors: string | null;
}

/** Writes the vector, as floats or as words of bytes. */
export function preparer(w: OneRowBlock): PreparedVector {
  return new Vector(w);
}

/** What elements of the vector are made of, as loaded. */
interface Elements {
  x: string[];
  gamma: string[];
}

/** Elements of a thread: quarter or word of channels, and whether there is one. */
interface Read extends Elements {
  at: string;
  there: string | null;
}

class Vector implements PreparedVector {
  readonly values: string;
  readonly steps: string;
  readonly totals: string;
  readonly factors: string | null;
  private readonly squares: string;
  private readonly passes: number;

  constructor(private readonly w: OneRowBlock) {
    const { spec, tiling } = w;
    const { norm } = spec;
    this.codes = spec.format.kind === 'codes';
    this.values = w.array('values');
    this.steps = this.codes ? w.array('steps') : '';
    this.totals = this.codes ? w.array('totals') : '';
    this.passes = passesOf(spec, tiling);
    this.squares = norm ? w.array('squares') : '';
    this.factors = norm && norm.groups > 1 ? w.array('factors') : null;
  }

  private readonly codes: boolean;

  /** Channels of a thread in a pass. */
  private get perThread(): number {
    return perThread(this.w.spec);
  }

  write(): void {
    // what two passes read goes out together
    for (let pass = 0; pass < this.passes; pass += 2) {
      const both = [pass, pass + 1].filter((i) => i < this.passes).map((i) => ({ i, read: this.read(i) }));
      for (const { i, read } of both) this.writePass(i, read);
    }
  }

  private read(pass: number): Read {
    const { k, spec, threads } = this.w;
    const at = pass === 0 ? k.thread : k.int('add.u32', k.thread, pass * threads);
    const whole = (pass + 1) * threads * this.perThread <= spec.inner;
    const there = whole ? null : k.compare('lt.u32', at, spec.inner / this.perThread);
    if (!this.codes) return { at, there, ...this.elements(k.int('shl.b32', at, 2), there, 0, 4) };
    const channel = k.int('mad.lo.u32', k.int('shr.u32', at, 4), 128, k.int('and.b32', at, 15));
    return { at, there, ...this.elements(channel, there, 16, 1) };
  }

  private writePass(pass: number, read: Read): void {
    const { k, spec, tiling } = this.w;
    const { x, gamma } = read;
    const scaled = spec.norm ? x.map((value, i) => k.float('mul.f32', value, gamma[i]!)) : x;
    if (this.codes) this.writeCodes(read, scaled);
    else this.writeFloats(read, scaled);
    if (!spec.norm) return;
    const sum = k.across('add.f32', this.squaresOf(x));
    const to = k.place(this.squares, k.warp, 4);
    const first = k.compare('eq.u32', k.lane, 0);
    k.when(first, () => k.run('st.shared.f32', `[${to}+${4 * pass * tiling.warps}]`, sum));
  }

  /** Elements at an offset in bytes from each channel, 0 where there is no such thread. */
  private load(at: string, offset: number, there: string | null, count: 1 | 4): string[] {
    const { k } = this.w;
    const out = k.registers('f', count);
    if (there) for (const x of out) k.run('mov.f32', x, '0f00000000');
    k.when(there, () =>
      k.run(
        count === 4 ? 'ld.global.nc.v4.f32' : 'ld.global.nc.f32',
        count === 4 ? `{${out.join(', ')}}` : out[0]!,
        `[${at}+${offset}]`,
      ),
    );
    return out;
  }

  /** Channels of one thread, and the norm's weights. @param spread channels between them, or 0 for four side by side */
  private elements(channel: string, there: string | null, spread: number, count: 1 | 4): Elements {
    const { k, spec } = this.w;
    const all = (name: string): string[] => {
      const from = k.address(this.w.pointer(name), channel, 4);
      const times = Array.from({ length: count === 4 ? 1 : 8 }, (_, m) => m);
      return times.flatMap((m) => this.load(from, 4 * m * spread, there, count));
    };
    return { x: all('x'), gamma: spec.norm ? all('gamma') : [] };
  }

  private squaresOf(raw: readonly string[]): string {
    const { k } = this.w;
    return raw.slice(1).reduce((sum, x) => k.float('fma.rn.f32', x, x, sum), k.float('mul.f32', raw[0]!, raw[0]!));
  }

  /** Four channels side by side of each thread. */
  private writeFloats({ at, there }: Read, scaled: readonly string[]): void {
    const { k } = this.w;
    // quarter `at` of 4 channels: k-tile at/64, lane (at/2)%32, half at%2
    const kTile = k.int('shr.u32', at, 6);
    const lane = k.int('and.b32', k.int('shr.u32', at, 1), 31);
    const half = k.int('and.b32', at, 1);
    const slot = k.int('mad.lo.u32', half, 32, k.int('mad.lo.u32', kTile, 64, lane));
    const to = k.place(this.values, slot, 16);
    k.when(there, () => k.run('st.shared.v4.f32', `[${to}]`, `{${scaled.join(', ')}}`));
  }

  /**
   * The eight channels of one word of codes in each thread: channel 16·p of its group and on has the word's bits 4p to 4p+3. Their values in
   * steps, by high and low byte, are put as the products of four bytes want them: those of even p together, and those of odd p.
   */
  private writeCodes({ at, there }: Read, scaled: readonly string[]): void {
    const { k } = this.w;
    const group = k.int('shr.u32', at, 4);
    const word = k.int('and.b32', at, 15);
    const largest = k.across(
      'max.f32',
      scaled.map((x) => k.float('abs.f32', x)).reduce((a, b) => k.float('max.f32', a, b)),
      16,
    );
    const total = k.across(
      'add.f32',
      scaled.reduce((a, b) => k.float('add.f32', a, b)),
      16,
    );
    const some = k.compare('gt.f32', largest, '0f00000000');
    const inverse = k.float('selp.f32', k.float('div.full.f32', STEPS, largest), 0, some);
    const packed = k.registers('r', 4); // high bytes of even and odd p, low bytes of even and odd p
    scaled.forEach((x, p) => {
      const q = k.int('cvt.rni.s32.f32', k.float('mul.f32', x, inverse));
      const high = k.int('shr.s32', k.int('add.s32', q, 128), 8);
      for (const [i, byte] of [high, q].entries()) {
        const to = packed[2 * i + (p & 1)]!;
        if (p < 2) k.run('and.b32', to, byte, 255);
        else k.run('bfi.b32', to, byte, to, 8 * (p >> 1), 8);
      }
    });
    const slot = k.int('mad.lo.u32', k.int('and.b32', word, 3), 4, k.int('shr.u32', word, 2));
    const to = k.place(k.place(this.values, group, GROUP_BYTES), slot, 16);
    const first = k.compare('eq.u32', word, 0);
    const lead = there ? k.set('p', 'and.pred', first, there) : first;
    const [stepAt, totalAt] = [this.steps, this.totals].map((base) => k.place(base, group, 4));
    const step = k.float('mul.f32', largest, 1 / STEPS);
    k.when(there, () => k.run('st.shared.v4.b32', `[${to}]`, `{${packed.join(', ')}}`));
    k.when(lead, () => {
      k.run('st.shared.f32', `[${stepAt}]`, step);
      k.run('st.shared.f32', `[${totalAt}]`, total);
    });
  }

  /** 1 / sqrt(mean square + epsilon) */
  private factor(squares: string): string {
    const { k, spec } = this.w;
    const { groups, epsilon } = spec.norm!;
    const mean = k.float('fma.rn.f32', squares, groups / spec.inner, k.float('mov.f32', epsilon));
    return k.float('rsqrt.approx.f32', mean);
  }

  finish(): string | null {
    const { k, spec, tiling } = this.w;
    const { norm } = spec;
    if (!norm) return null;
    const sums = tiling.warps * this.passes; // sums of squares there are, in the order of channels
    if (!this.factors) {
      const own = k.place(this.squares, k.lane, 4);
      const terms: string[] = [];
      for (let from = 0; from < sums; from += 32) {
        const term = k.float('mov.f32', 0);
        const there = sums - from >= 32 ? null : k.compare('lt.u32', k.lane, sums - from);
        k.when(there, () => k.run('ld.shared.f32', term, `[${own}+${4 * from}]`));
        terms.push(term);
      }
      return this.factor(
        k.across(
          'add.f32',
          terms.reduce((a, b) => k.float('add.f32', a, b)),
        ),
      );
    }
    const each = spec.inner / norm.groups / (32 * this.perThread);
    const there = k.compare('lt.u32', k.thread, norm.groups);
    const from = k.place(this.squares, k.thread, 4 * each);
    const terms = Array.from({ length: each }, () => k.float('mov.f32', 0));
    k.when(there, () => terms.forEach((term, i) => k.run('ld.shared.f32', term, `[${from}+${4 * i}]`)));
    const factor = this.factor(terms.reduce((a, b) => k.float('add.f32', a, b)));
    const to = k.place(this.factors, k.thread, 4);
    k.when(there, () => k.run('st.shared.f32', `[${to}]`, factor));
    k.barrier();
    return null;
  }
}
