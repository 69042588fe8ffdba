/** Random operands for the kernels of CPUs, and what their results are held to. */
import { expect } from 'chai';
import type { Bounded } from '../../../src/kernels/host/reference.js';
import { TILE } from '../../../src/kernels/index.js';
import { lcg } from '../../support/random.js';

/** Bits of numbers that bfloat16 holds, in its type. */
export function asBfloat16(values: Float32Array): Uint16Array {
  return Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);
}

export class Draw {
  private readonly next: () => number;
  constructor(seed: number) {
    this.next = lcg(seed);
  }
  whole(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }
  flag(): boolean {
    return this.next() < 0.5;
  }
  of<T>(values: readonly T[]): T {
    return values[this.whole(0, values.length - 1)]!;
  }
  numbers(size: number, spread = 1): Float32Array {
    return Float32Array.from({ length: size }, () => (this.next() * 2 - 1) * spread);
  }
  /** Numbers that bfloat16 holds too. */
  levels(size: number, spread: number): Float32Array {
    const bits = new Uint32Array(this.numbers(size, spread).buffer).map((word) => word & 0xffff0000);
    return new Float32Array(bits.buffer);
  }
  /** An int4 matrix in tiles. */
  codes(out: number, inner: number, groupSize: number): { codes: Uint8Array; scale: Float32Array; zero: Float32Array } {
    const size = Math.ceil(out / TILE) * (inner / groupSize) * TILE;
    return {
      codes: Uint8Array.from({ length: (size * groupSize) / 2 }, () => this.whole(0, 255)),
      scale: this.levels(size, 0.1),
      zero: this.levels(size, 0.3),
    };
  }
}

const size = (values: ArrayLike<number>): number =>
  Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0)) / values.length;

/** Every value is as near to what is wanted as its bound says. */
export function expectWithin(got: ArrayLike<number>, want: Bounded, name: string): void {
  expect(got.length, name).to.equal(want.values.length);
  Array.from(got).forEach((value, o) => {
    const [wanted, bound] = [want.values[o]!, want.bounds[o]!];
    expect(Math.abs(value - wanted), `${name}: ${value} at ${o}, expected ${wanted}`).to.be.at.most(bound);
  });
}

/** The same, and the bounds are no excuse for anything. */
export function expectNear(got: ArrayLike<number>, want: Bounded, name: string): void {
  expectWithin(got, want, name);
  expect(size(want.bounds), name).to.be.below(2e-3 * size(want.values));
}

/** All values together are as near to what is wanted, in relation to its size. */
export function expectTogether(got: ArrayLike<number>, want: Bounded, most: number, name: string): void {
  const off = Array.from(got, (value, i) => value - want.values[i]!);
  expect(size(off), name).to.be.at.most(most * size(want.values));
}
