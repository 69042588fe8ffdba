/** PTX instructions of numbers alone, as the interpreter (ptx.ts) runs them. */
import { bf16BitsOf } from './bits.js';

const byte = (x: number, i: number): number => (x >>> (8 * i)) & 255;
const signed = (x: number): number => (x << 24) >> 24;
/** The nearest whole number, to even where two are as near. */
const even = (x: number): number => {
  const near = Math.round(x);
  return Math.abs(x % 1) === 0.5 && near % 2 !== 0 ? near - 1 : near;
};

/** Comparisons of setp. */
export const COMPARE: Record<string, (a: number, b: number) => boolean> = {
  lt: (a, b) => a < b,
  gt: (a, b) => a > b,
  ge: (a, b) => a >= b,
  eq: (a, b) => a === b,
  ne: (a, b) => a !== b,
};

const { fround } = Math;
/** A register's 32 bits as an unsigned number. */
export const u = (x: number): number => x >>> 0;
/** Instructions of numbers alone; results of r are taken as 32 bits. */
export const PLAIN: Record<string, (...x: number[]) => number> = {
  'and.b32': (a, b) => a & b,
  'shl.b32': (a, b) => a << b,
  'shr.u32': (a, b) => u(a) >>> b,
  'shr.s32': (a, b) => a >> b,
  'add.u32': (a, b) => (a + b) | 0,
  'add.s32': (a, b) => (a + b) | 0,
  'sub.s32': (a, b) => (a - b) | 0,
  'mul.lo.u32': (a, b) => Math.imul(a, b),
  'mad.lo.u32': (a, b, c) => (Math.imul(a, b) + c) | 0,
  'mad.lo.s32': (a, b, c) => (Math.imul(a, b) + c) | 0,
  'min.u32': (a, b) => Math.min(u(a), u(b)),
  'div.u32': (a, b) => Math.floor(u(a) / u(b)),
  'selp.u32': (a, b, p) => (p ? a : b),
  'selp.f32': (a, b, p) => (p ? a : b),
  'and.pred': (a, b) => a * b, // of what nobody wrote, NaN
  'bfi.b32': (a, b, at, size) => {
    const mask = (2 ** size - 1) << at;
    return (b & ~mask) | ((a << at) & mask);
  },
  'dp4a.u32.s32': (a, b, c) => [0, 1, 2, 3].reduce((sum, i) => (sum + byte(a, i) * signed(byte(b, i))) | 0, c),
  'mul.wide.u32': (a, b) => u(a) * u(b),
  'mad.wide.u32': (a, b, c) => u(a) * u(b) + c,
  'mad.wide.s32': (a, b, c) => a * b + c,
  'cvt.u64.u32': (a) => u(a),
  'add.s64': (a, b) => a + b,
  'cvt.rni.s32.f32': (a) => even(a),
  'cvt.rn.f32.s32': (a) => fround(a),
  'cvt.rn.bf16x2.f32': (a, b) => (bf16BitsOf(a) << 16) | bf16BitsOf(b),
  'add.f32': (a, b) => fround(a + b),
  'mul.f32': (a, b) => fround(a * b),
  'fma.rn.f32': (a, b, c) => fround(a * b + c),
  'neg.f32': (a) => -a,
  'abs.f32': (a) => Math.abs(a),
  'max.f32': (a, b) => Math.max(a, b),
  'min.f32': (a, b) => Math.min(a, b),
  'div.full.f32': (a, b) => fround(a / b),
  'ex2.approx.f32': (a) => fround(2 ** a),
  'rsqrt.approx.f32': (a) => fround(1 / Math.sqrt(a)),
};
