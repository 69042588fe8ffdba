/** The elementwise interface over the writer of PTX: values are registers, places 64-bit addresses in a register. */
import type { PtxWriter } from '../../jit/custom_call/ptx.js';
import type { Elementwise } from './elementwise.js';

export interface PtxPlace {
  address: string;
  /** The instruction that reads there: by the path for what no kernel writes meanwhile, or the plain one. */
  read: 'ld.global.nc.f32' | 'ld.global.f32';
}

export class PtxElements implements Elementwise<string, PtxPlace> {
  /** @param pointer parameters by name @param written parameters that the kernel itself writes to */
  constructor(
    private readonly k: PtxWriter,
    private readonly pointer: (name: string) => string,
    private readonly written: readonly string[] = [],
  ) {}

  plus(index: string, by: number): string {
    return by === 0 ? index : this.k.int('add.s32', index, by);
  }

  less(index: string, than: number): string {
    return this.k.compare('lt.s32', index, than);
  }

  atLeast(index: string, least: number): string {
    return this.k.compare('ge.s32', index, least);
  }

  both(a: string, b: string): string {
    return this.k.set('p', 'and.pred', a, b);
  }

  place(parameter: string, index: string, stride = 1): PtxPlace {
    const read = this.written.includes(parameter) ? 'ld.global.f32' : 'ld.global.nc.f32';
    return { address: this.element(this.pointer(parameter), index, stride), read };
  }

  shift({ address, read }: PtxPlace, index: string, stride = 1): PtxPlace {
    return { address: this.element(address, index, stride), read };
  }

  scalar(parameter: string): string {
    return this.k.int('ld.global.nc.b32', `[${this.pointer(parameter)}]`);
  }

  load({ address, read }: PtxPlace, offset: number, where: string | null): string {
    const to = this.k.register('f');
    this.k.when(where, () => this.k.run(read, to, `[${address}+${4 * offset}]`));
    return to;
  }

  store({ address }: PtxPlace, offset: number, value: string, where: string | null): void {
    this.k.when(where, () => this.k.run('st.global.f32', `[${address}+${4 * offset}]`, value));
  }

  constant(value: number): string {
    return this.k.float('mov.f32', value);
  }

  add(a: string, b: string): string {
    return this.k.float('add.f32', a, b);
  }

  multiply(a: string, b: string): string {
    return this.k.float('mul.f32', a, b);
  }

  fma(a: string, b: string, c: string): string {
    return this.k.float('fma.rn.f32', a, b, c);
  }

  negate(x: string): string {
    return this.k.float('neg.f32', x);
  }

  atMost(x: string, most: number): string {
    return this.k.float('min.f32', x, most);
  }

  noLess(x: string, least: number): string {
    return this.k.float('max.f32', x, least);
  }

  exp(x: string, { least, most }: { least?: number; most?: number }): string {
    let bounded = x;
    if (least !== undefined) bounded = this.noLess(bounded, least);
    if (most !== undefined) bounded = this.atMost(bounded, most);
    return this.k.exp(bounded);
  }

  silu(x: string): string {
    return this.k.silu(x);
  }

  softplus(x: string): string {
    return this.k.softplus(x);
  }

  select(condition: string, a: string, b: string): string {
    return this.k.float('selp.f32', a, b, condition);
  }

  private element(base: string, index: string, stride: number): string {
    return this.k.set('d', 'mad.wide.s32', index, 4 * stride, base);
  }
}
