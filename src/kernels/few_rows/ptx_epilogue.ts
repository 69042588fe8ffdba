/** What follows a product of a few rows in PTX: one thread a row of the matrix, for some of the given rows in turn. */
import { Epilogue, type EpilogueOperands } from '../epilogue/epilogue.js';
import { PtxElements, type PtxPlace } from '../epilogue/ptx_elements.js';
import type { FewRowsBlock } from './ptx_block.js';
import { segmentsOf } from './tiling.js';

/** Asks for what the epilogue needs from memory, to lie near when it does. */
export function prefetchEpilogue(w: FewRowsBlock): void {
  new FewRowsEpilogue(w).prefetch();
}

/** Goes on from the results of all warps, [splitK][rows][pitch] in shared memory, or from a product that is there. */
export function writeEpilogue(w: FewRowsBlock): void {
  // made anew: what it holds need not stay in registers while rows are multiplied
  new FewRowsEpilogue(w).write();
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

class FewRowsEpilogue {
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
    if (spec.epilogue) new ProjectionEpilogue(this.w, this.place, this.has).prefetch(this.items, this.first);
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
    const after = this.w.spec.epilogue ? new ProjectionEpilogue(this.w, this.place, this.has) : null;
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

  private some(items: readonly Item[], activated: ProjectionEpilogue | null): void {
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
      const rounded = k.int('cvt.rn.bf16x2.f32', zero, k.float('mul.f32', x, gamma));
      k.when(there, () => k.run('st.global.u16', `[${to}+${width * after}]`, rounded));
      const sum = k.across('add.f32', k.float('mul.f32', x, x));
      const lead = k.set('p', 'and.pred', row, k.compare('eq.u32', k.lane, 0));
      k.when(lead, () => k.run('st.global.f32', `[${sumAt}+${4 * after * partials}]`, sum));
    });
  }
}

/** The epilogue of an input projection, of the given rows in turn, and the convolution's context, which it moves on. */
class ProjectionEpilogue {
  private readonly e: PtxElements;
  private readonly epilogue: Epilogue<string, PtxPlace>;
  private operands: EpilogueOperands<string> | null = null;

  constructor(
    private readonly w: FewRowsBlock,
    private readonly place: string,
    has: string,
  ) {
    this.e = new PtxElements(w.k, (name) => w.pointer(name), ['context']);
    this.epilogue = new Epilogue(this.e, w.spec.epilogue!, place, has);
  }

  /** What belongs to the position alone. */
  read(): void {
    this.operands = this.epilogue.operands();
  }

  /** Floats in a row of the context. */
  private get width(): number {
    const { layers, taps, channels } = this.w.spec.epilogue!;
    return layers * (taps - 1) * channels;
  }

  prefetch(items: readonly Item[], first: string): void {
    const { k, spec } = this.w;
    const { taps, channels } = spec.epilogue!;
    const { address } = this.epilogue.contextAt('context', first, this.width);
    for (const { after, there } of items) {
      const inside = this.e.both(there, this.epilogue.convolved);
      for (let i = 0; i < taps - 1; i++)
        k.when(inside, () => k.run('prefetch.global.L2', `[${address}+${4 * (after * this.width + i * channels)}]`));
    }
  }

  /** @param first the warp's first row @param products of each item */
  write(items: readonly Item[], first: string, products: readonly string[]): void {
    const { e, epilogue, width } = this;
    const { k, spec } = this.w;
    const { channels, masked, heads } = spec.epilogue!;
    const from = epilogue.contextAt('context', first, width);
    const to = epilogue.contextAt('moved', first, width);
    const maskAt = masked ? e.place('mask', first) : null;
    const size = spec.out + heads;
    const yAt = e.shift(e.place('y', this.place), first, size);
    const loaded = items.map(({ after, there, row }) => {
      const inside = e.both(there, epilogue.convolved);
      const context = epilogue.context(from, after * width, inside);
      return { context, inside, mask: maskAt ? e.load(maskAt, after, row) : undefined };
    });
    items.forEach(({ after, there }, item) => {
      const { context, inside, mask } = loaded[item]!;
      const y = products[item]!;
      const { value, decay } = epilogue.finish(y, epilogue.known(this.operands!, context), mask);
      e.store(yAt, after * size, value, there);
      e.store(yAt, after * size + heads, decay, e.both(there, epilogue.head));
      const moves = mask ? e.both(inside, k.compare('ne.f32', mask, '0f00000000')) : inside;
      [...context, y].slice(1).forEach((x, i) => e.store(to, after * width + i * channels, x, moves));
    });
  }
}
