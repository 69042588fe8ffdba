/** The elementwise interface over the writer of Triton's language: values are tensors of a program, places a pointer and offsets. */
import type { TritonWriter, TtirValue } from '../../jit/custom_call/triton.js';
import type { Elementwise } from './elementwise.js';

export interface TritonPlace {
  pointer: TtirValue;
  offsets: TtirValue;
}

export class TritonElements implements Elementwise<TtirValue, TritonPlace> {
  /** @param pointer parameters by name */
  constructor(
    private readonly k: TritonWriter,
    private readonly pointer: (name: string) => TtirValue,
  ) {}

  plus(index: TtirValue, by: number): TtirValue {
    return by === 0 ? index : this.k.binary('arith.addi', index, by);
  }

  less(index: TtirValue, than: number): TtirValue {
    return this.k.compare('arith.cmpi slt', index, than);
  }

  atLeast(index: TtirValue, least: number): TtirValue {
    return this.k.compare('arith.cmpi sge', index, least);
  }

  both(a: TtirValue, b: TtirValue): TtirValue {
    return this.k.binary('arith.andi', a, b);
  }

  place(parameter: string, index: TtirValue, stride = 1): TritonPlace {
    return { pointer: this.pointer(parameter), offsets: this.times(index, stride) };
  }

  shift({ pointer, offsets }: TritonPlace, index: TtirValue, stride = 1): TritonPlace {
    return { pointer, offsets: this.k.binary('arith.addi', offsets, this.times(index, stride)) };
  }

  scalar(parameter: string): TtirValue {
    return this.k.load(this.pointer(parameter), this.k.constant(0, 'i32'));
  }

  load({ pointer, offsets }: TritonPlace, offset: number, where: TtirValue | null): TtirValue {
    return this.k.load(pointer, this.plus(offsets, offset), where ?? undefined);
  }

  store({ pointer, offsets }: TritonPlace, offset: number, value: TtirValue, where: TtirValue | null): void {
    this.k.store(pointer, this.plus(offsets, offset), value, where ?? undefined);
  }

  constant(value: number): TtirValue {
    return this.k.constant(value, 'f32');
  }

  add(a: TtirValue, b: TtirValue): TtirValue {
    return this.k.binary('arith.addf', a, b);
  }

  multiply(a: TtirValue, b: TtirValue): TtirValue {
    return this.k.binary('arith.mulf', a, b);
  }

  fma(a: TtirValue, b: TtirValue, c: TtirValue): TtirValue {
    return this.add(this.multiply(a, b), c);
  }

  negate(x: TtirValue): TtirValue {
    return this.k.binary('arith.mulf', x, -1);
  }

  atMost(x: TtirValue, most: number): TtirValue {
    return this.k.binary('arith.minimumf', x, most);
  }

  noLess(x: TtirValue, least: number): TtirValue {
    return this.k.binary('arith.maximumf', x, least);
  }

  exp(x: TtirValue): TtirValue {
    return this.k.unary('math.exp', x);
  }

  silu(x: TtirValue): TtirValue {
    return this.k.binary('arith.divf', x, this.k.binary('arith.addf', this.exp(this.negate(x)), 1));
  }

  softplus(x: TtirValue): TtirValue {
    return this.k.softplus(x);
  }

  select(condition: TtirValue, a: TtirValue, b: TtirValue): TtirValue {
    return this.k.select(condition, a, b);
  }

  private times(index: TtirValue, by: number): TtirValue {
    return by === 1 ? index : this.k.binary('arith.muli', index, by);
  }
}
