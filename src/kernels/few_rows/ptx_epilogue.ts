/** What follows a product of a few rows in PTX (batch_ptx.ts): one thread a row of the matrix, for some of the given rows in turn. */
import type { FewRowsBlock } from './ptx_block.js';
import { segmentsOf } from './tiling.js';

/** Asks for what the end needs from memory, to lie near when it does. */
export function prefetchEpilogue(w: FewRowsBlock): void {
  new Ending(w).prefetch();
}

/** Goes on from the results of all warps, [splitK][rows][pitch] in shared memory, or from a product that is there. */
export function writeEpilogue(w: FewRowsBlock): void {
  // made anew: what it holds need not stay in registers while rows are multiplied
  new Ending(w).write();
}

/** One of the given rows, as a warp comes to it. */
interface Item {
  /** How many rows after the warp's first one. */
  after: number;
  /** The thread has a result of it. */
  there: string;
  /** For the whole warp: there is such a row. */
  row: string;
}

/** Items whose reads are under way together. */
const TOGETHER = 4;

class Ending {
  /** Given rows that the block's warps take at a time, and the warp's first. */
  private readonly stride: number;
  private readonly first: string;
  private readonly segment: string;
  /** Row of the matrix within the block and among all. */
  private readonly own: string;
  private readonly place: string;
  private readonly items: Item[];
  /** The thread has a row of the matrix. */
  private readonly has: string;

  constructor(private readonly w: FewRowsBlock) {
    const { k, spec, tiling } = w;
    const segments = segmentsOf(spec, tiling);
    this.stride = Math.floor(w.warps / segments);
    this.first = k.int('div.u32', k.warp, segments);
    this.segment = k.int('sub.s32', k.warp, k.int('mul.lo.u32', this.first, segments));
    this.own = k.int('mad.lo.u32', this.segment, 32, k.lane);
    this.place = k.int('add.u32', w.base, this.own);
    const works = k.compare('lt.u32', this.first, this.stride);
    const has = k.set('p', 'and.pred', k.compare('lt.u32', this.own, w.count), works);
    this.items = Array.from({ length: Math.ceil(spec.rows / this.stride) }, (_, i) => {
      const left = spec.rows - i * this.stride;
      const inside = left < this.stride ? k.compare('lt.u32', this.first, left) : null;
      const and = (p: string): string => (inside ? k.set('p', 'and.pred', p, inside) : p);
      return { after: i * this.stride, there: and(has), row: and(works) };
    });
    this.has = has;
  }

  prefetch(): void {
    const { k, spec } = this.w;
    if (spec.epilogue) new Activated(this.w, this.place, this.has).prefetch(this.items, this.first);
    if (!spec.residual) return;
    const from = this.at('residual', spec.out);
    for (const { after, there } of this.items)
      k.when(there, () => k.run('prefetch.global.L2', `[${from}+${4 * after * spec.out}]`));
  }

  /** Address of the warp's first row in rows of `width` floats, at the thread's row of the matrix. */
  private at(name: string, width: number): string {
    const { k } = this.w;
    const start = k.set('d', 'mad.wide.u32', this.first, 4 * width, this.w.pointer(name));
    return k.address(start, this.place, 4);
  }

  write(): void {
    const after = this.w.spec.epilogue ? new Activated(this.w, this.place, this.has) : null;
    after?.read();
    for (let i = 0; i < this.items.length; i += TOGETHER) this.some(this.items.slice(i, i + TOGETHER), after);
  }

  /** The product of each item. */
  private sums(items: readonly Item[]): string[] {
    const { k, spec, shared, pitch, tiling } = this.w;
    const from = k.place(shared, k.int('mad.lo.u32', this.first, pitch, this.own), 4);
    return items.map(({ after, there }) => {
      const terms = Array.from({ length: tiling.splitK }, (_, kPart) => {
        const term = k.float('mov.f32', 0);
        k.when(there, () => k.run('ld.shared.f32', term, `[${from}+${4 * (kPart * spec.rows + after) * pitch}]`));
        return term;
      });
      return terms.reduce((a, b) => k.float('add.f32', a, b));
    });
  }

  /** Products that are there. */
  private given(items: readonly Item[]): string[] {
    const { k, spec } = this.w;
    const from = k.address(k.set('d', 'mad.wide.u32', this.first, 2 * spec.out, this.w.pointer('raw')), this.place, 2);
    return items.map(({ after, there }) => {
      const word = k.int('mov.u32', 0);
      k.when(there, () => k.run('ld.global.nc.u16', word, `[${from}+${2 * after * spec.out}]`));
      return k.float('mov.b32', k.int('shl.b32', word, 16));
    });
  }

  /** The product of each item, times the factor of its norm. */
  private products(items: readonly Item[]): string[] {
    const { k, factors, spec } = this.w;
    const sums = spec.epilogueOnly ? this.given(items) : this.sums(items);
    const factorAt = factors && k.place(factors, this.first, 4);
    return items.map(({ after, row }, i) => {
      const sum = sums[i]!;
      if (!factorAt) return sum;
      const factor = k.float('mov.f32', 0);
      k.when(row, () => k.run('ld.shared.f32', factor, `[${factorAt}+${4 * after}]`));
      return k.float('mul.f32', sum, factor);
    });
  }

  private some(items: readonly Item[], activated: Activated | null): void {
    const { k, spec } = this.w;
    const products = this.products(items);
    if (activated) return activated.write(items, this.first, products);
    const added = spec.residual ? this.residuals(items) : null;
    const results = added ? products.map((y, i) => k.float('add.f32', y, added[i]!)) : products;
    const to = this.at('y', spec.out);
    items.forEach(({ after, there }, i) =>
      k.when(there, () => k.run('st.global.f32', `[${to}+${4 * after * spec.out}]`, results[i]!)),
    );
    if (added) this.writeNext(items, results);
  }

  private residuals(items: readonly Item[]): string[] {
    const { k, spec } = this.w;
    const from = this.at('residual', spec.out);
    return items.map(({ after, there }) => {
      const x = k.float('mov.f32', 0);
      k.when(there, () => k.run('ld.global.nc.f32', x, `[${from}+${4 * after * spec.out}]`));
      return x;
    });
  }

  /** Where the warp's first row is among those of the next product. */
  private nextAt(): string {
    const { k, spec } = this.w;
    const next = this.w.pointer('next');
    if (spec.epilogueOnly) return k.address(k.set('d', 'mad.wide.u32', this.first, 2 * spec.out, next), this.place, 2);
    const slot = k.int('mad.lo.u32', k.int('shr.u32', this.place, 5), spec.rows, this.first);
    return k.address(next, k.int('mad.lo.u32', slot, 32, k.int('and.b32', this.place, 31)), 2);
  }

  /** The next product's rows, and sums of their squares. @param stream 0 where the thread has none */
  private writeNext(items: readonly Item[], stream: readonly string[]): void {
    const { k, spec, partials } = this.w;
    const gamma = k.float('mov.f32', 0);
    const gammaAt = k.address(this.w.pointer('gamma'), this.place, 4);
    k.when(items[0]!.there, () => k.run('ld.global.nc.f32', gamma, `[${gammaAt}]`));
    const to = this.nextAt();
    const width = spec.epilogueOnly ? 2 * spec.out : 64;
    const number = k.int('mad.lo.u32', k.block, partials / this.w.tiling.blocks, this.segment);
    const sumAt = k.address(k.set('d', 'mad.wide.u32', this.first, 4 * partials, this.w.pointer('sums')), number, 4);
    const zero = k.float('mov.f32', 0);
    items.forEach(({ after, there, row }, i) => {
      const x = stream[i]!;
      const narrow = k.int('cvt.rn.bf16x2.f32', zero, k.float('mul.f32', x, gamma));
      k.when(there, () => k.run('st.global.u16', `[${to}+${width * after}]`, narrow));
      const sum = k.across('add.f32', k.float('mul.f32', x, x));
      const lead = k.set('p', 'and.pred', row, k.compare('eq.u32', k.lane, 0));
      k.when(lead, () => k.run('st.global.f32', `[${sumAt}+${4 * after * partials}]`, sum));
    });
  }
}

/** Gate with SiLU; a step of the convolution with SiLU, which moves its context on; step sizes and decays. */
class Activated {
  private readonly gate: string;
  private readonly inside: string;
  private readonly step: string;
  /** Bytes from the start of a layer's context, or of a vector of channels or heads. */
  private readonly offset: string;
  private taps: string[] = [];
  /** Of a channel its bias, of a step size its; and what decays are made of. */
  private bias = '';
  private rate = '';

  constructor(
    private readonly w: FewRowsBlock,
    private readonly place: string,
    has: string,
  ) {
    const { k, spec } = w;
    const { first, channels } = spec.epilogue!;
    const both = (a: string, b: string): string => k.set('p', 'and.pred', a, b);
    const channel = k.int('sub.s32', place, first);
    this.gate = k.compare('lt.u32', place, first);
    this.inside = both(both(k.compare('ge.s32', channel, 0), k.compare('lt.s32', channel, channels)), has);
    this.step = both(k.compare('ge.s32', channel, channels), has);
    this.offset = k.set('d', 'mul.wide.s32', channel, 4);
  }

  /** What is of the channel or the step size alone. */
  read(): void {
    const { k, spec } = this.w;
    const { channels, taps, first, bias } = spec.epilogue!;
    const vector = (name: string): string => k.set('d', 'add.s64', this.w.pointer(name), this.offset);
    const channel = k.int('sub.s32', this.place, first);
    const tapAt = k.set('d', 'add.s64', this.w.pointer('taps'), k.set('d', 'mul.wide.s32', channel, 4 * taps));
    this.taps = Array.from({ length: taps }, () => k.float('mov.f32', 0));
    this.bias = k.float('mov.f32', 0);
    this.rate = k.float('mov.f32', 0);
    const own = bias ? vector('bias') : null;
    const [ownStep, rate] = [vector('dt_bias'), vector('A_log')];
    k.when(this.inside, () => {
      this.taps.forEach((tap, i) => k.run('ld.global.nc.f32', tap, `[${tapAt}+${4 * i}]`));
      if (own) k.run('ld.global.nc.f32', this.bias, `[${own}]`);
    });
    k.when(this.step, () => {
      k.run('ld.global.nc.f32', this.bias, `[${ownStep}+${-4 * channels}]`);
      k.run('ld.global.nc.f32', this.rate, `[${rate}+${-4 * channels}]`);
    });
  }

  /** Of the warp's first row: its context, at the thread's channel. */
  private context(name: string, first: string): string {
    const { k } = this.w;
    const start = k.set('d', 'mad.wide.u32', first, 4 * this.width, this.w.pointer(name));
    const layer = k.address(start, k.int('ld.global.nc.b32', `[${this.w.pointer('place')}]`), 4);
    return k.set('d', 'add.s64', layer, this.offset);
  }

  /** Floats in a row of the context. */
  private get width(): number {
    const { layers, taps, channels } = this.w.spec.epilogue!;
    return layers * (taps - 1) * channels;
  }

  private inContext(there: string): string {
    return this.w.k.set('p', 'and.pred', there, this.inside);
  }

  prefetch(items: readonly Item[], first: string): void {
    const { k, spec } = this.w;
    const { taps, channels } = spec.epilogue!;
    const at = this.context('context', first);
    for (const { after, there } of items) {
      const inside = this.inContext(there);
      for (let i = 0; i < taps - 1; i++)
        k.when(inside, () => k.run('prefetch.global.L2', `[${at}+${4 * (after * this.width + i * channels)}]`));
    }
  }

  /** @param first the warp's first row @param products of each item */
  write(items: readonly Item[], first: string, products: readonly string[]): void {
    const { k, spec } = this.w;
    const { channels, taps, masked, heads } = spec.epilogue!;
    const from = this.context('context', first);
    const to = this.context('moved', first);
    const maskAt = masked ? k.address(this.w.pointer('mask'), first, 4) : null;
    const size = spec.out + heads;
    const yAt = k.address(k.set('d', 'mad.wide.u32', first, 4 * size, this.w.pointer('y')), this.place, 4);
    const loaded = items.map(({ after, there, row }) => {
      const inside = this.inContext(there);
      const old = Array.from({ length: taps - 1 }, (_, i) => {
        const x = k.float('mov.f32', 0);
        const offset = 4 * (after * this.width + i * channels);
        k.when(inside, () => k.run('ld.global.f32', x, `[${from}+${offset}]`));
        return x;
      });
      const mask = maskAt && k.float('mov.f32', 0);
      if (mask) k.when(row, () => k.run('ld.global.nc.f32', mask, `[${maskAt}+${4 * after}]`));
      return { old, mask, inside };
    });
    items.forEach(({ after, there }, item) => {
      const { old, mask, inside } = loaded[item]!;
      const y = products[item]!;
      const all = [...old, y]; // raw, from the oldest on
      const convolution = all.reduce((sum, x, i) => k.float('fma.rn.f32', x, this.taps[i]!, sum), this.bias);
      const activated = k.silu(k.float('selp.f32', y, convolution, this.gate));
      const dt = this.stepSize(y, mask);
      const stored = k.float('selp.f32', dt, activated, this.step);
      const offset = 4 * after * size;
      k.when(there, () => k.run('st.global.f32', `[${yAt}+${offset}]`, stored));
      const decay = k.decay(this.rate, dt);
      const step = k.set('p', 'and.pred', there, this.step);
      k.when(step, () => k.run('st.global.f32', `[${yAt}+${offset + 4 * heads}]`, decay));
      const moves = mask ? k.set('p', 'and.pred', inside, k.compare('ne.f32', mask, '0f00000000')) : inside;
      k.when(moves, () =>
        all.slice(1).forEach((x, i) => k.run('st.global.f32', `[${to}+${4 * (after * this.width + i * channels)}]`, x)),
      );
    });
  }

  private stepSize(y: string, mask: string | null): string {
    const { k, spec } = this.w;
    const dt = k.stepSize(k.float('add.f32', y, this.bias), spec.epilogue!.limit);
    return mask ? k.float('mul.f32', dt, mask) : dt;
  }
}
