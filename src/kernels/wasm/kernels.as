/**
 * Products in WebAssembly's SIMD, in AssemblyScript. `npx tsx scripts/wasm_kernels.ts` makes binary.ts of this and the other *.as files.
 *
 * All memory is TensorFlow.js': arguments are addresses there, and nothing is allocated here. call.ts says what they point to;
 * test/kernels/wasm has the same in plain loops. Four outputs are worked on side by side, which share what is read of x.
 */

import { fma, sum4 } from './vector';

/** The sums of four vectors as one. */
// @ts-ignore: decorator
@inline
function sums4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}

/** Of one row of x and one of W: a sum over all channels. */
function dot(x: usize, w: usize, inner: i32): f32 {
  let acc = f32x4.splat(0);
  const whole = inner & ~3;
  let i = 0;
  for (; i < whole; i += 4) acc = fma(acc, v128.load(x + (i << 2)), v128.load(w + (i << 2)));
  let sum = sum4(acc);
  for (; i < inner; i++) sum += load<f32>(x + (i << 2)) * load<f32>(w + (i << 2));
  return sum;
}

/** y [rows, stride], of which `out` columns are written: x [rows, inner] times W [out, inner] transposed, float32. */
export function dense(x: usize, w: usize, y: usize, rows: i32, inner: i32, out: i32, stride: i32): void {
  const row = <usize>inner << 2;
  const step = <usize>stride << 2;
  const whole = inner & ~3;
  const bytes = <usize>whole << 2;
  let o = 0;
  for (; o + 4 <= out; o += 4) {
    const w0 = w + <usize>o * row;
    const w1 = w0 + row;
    const w2 = w1 + row;
    const w3 = w2 + row;
    let r = 0;
    for (; r + 2 <= rows; r += 2) {
      const x0 = x + <usize>r * row;
      const x1 = x0 + row;
      let a0 = f32x4.splat(0);
      let a1 = a0;
      let a2 = a0;
      let a3 = a0;
      let b0 = a0;
      let b1 = a0;
      let b2 = a0;
      let b3 = a0;
      for (let i: usize = 0; i < bytes; i += 16) {
        const xa = v128.load(x0 + i);
        const xb = v128.load(x1 + i);
        let v = v128.load(w0 + i);
        a0 = fma(a0, v, xa);
        b0 = fma(b0, v, xb);
        v = v128.load(w1 + i);
        a1 = fma(a1, v, xa);
        b1 = fma(b1, v, xb);
        v = v128.load(w2 + i);
        a2 = fma(a2, v, xa);
        b2 = fma(b2, v, xb);
        v = v128.load(w3 + i);
        a3 = fma(a3, v, xa);
        b3 = fma(b3, v, xb);
      }
      let ya = sums4(a0, a1, a2, a3);
      let yb = sums4(b0, b1, b2, b3);
      for (let i = bytes; i < row; i += 4) {
        const v = f32x4(load<f32>(w0 + i), load<f32>(w1 + i), load<f32>(w2 + i), load<f32>(w3 + i));
        ya = fma(ya, v, v128.load32_splat(x0 + i));
        yb = fma(yb, v, v128.load32_splat(x1 + i));
      }
      v128.store(y + <usize>r * step + (<usize>o << 2), ya);
      v128.store(y + <usize>(r + 1) * step + (<usize>o << 2), yb);
    }
    if (r < rows) {
      const x0 = x + <usize>r * row;
      let a0 = f32x4.splat(0);
      let a1 = a0;
      let a2 = a0;
      let a3 = a0;
      for (let i: usize = 0; i < bytes; i += 16) {
        const xa = v128.load(x0 + i);
        a0 = fma(a0, v128.load(w0 + i), xa);
        a1 = fma(a1, v128.load(w1 + i), xa);
        a2 = fma(a2, v128.load(w2 + i), xa);
        a3 = fma(a3, v128.load(w3 + i), xa);
      }
      let ya = sums4(a0, a1, a2, a3);
      for (let i = bytes; i < row; i += 4) {
        const v = f32x4(load<f32>(w0 + i), load<f32>(w1 + i), load<f32>(w2 + i), load<f32>(w3 + i));
        ya = fma(ya, v, v128.load32_splat(x0 + i));
      }
      v128.store(y + <usize>r * step + (<usize>o << 2), ya);
    }
  }
  for (; o < out; o++)
    for (let r = 0; r < rows; r++)
      store<f32>(y + <usize>r * step + (<usize>o << 2), dot(x + <usize>r * row, w + <usize>o * row, inner));
}

/** y [out] of one row of x [inner]; W [out, inner] in bfloat16. */
export function bf16Product(x: usize, w: usize, y: usize, inner: i32, out: i32): void {
  const whole = inner & ~7;
  for (let o = 0; o < out; o++) {
    const from = w + ((<usize>o * inner) << 1);
    let a = f32x4.splat(0);
    let b = a;
    let i = 0;
    for (; i < whole; i += 8) {
      const v = v128.load(from + (i << 1));
      a = fma(a, i32x4.shl(i32x4.extend_low_i16x8_u(v), 16), v128.load(x + (i << 2)));
      b = fma(b, i32x4.shl(i32x4.extend_high_i16x8_u(v), 16), v128.load(x + (i << 2), 16));
    }
    let sum = sum4(f32x4.add(a, b));
    for (; i < inner; i++)
      sum += load<f32>(x + (i << 2)) * reinterpret<f32>(<u32>load<u16>(from + (i << 1)) << 16);
    store<f32>(y + (<usize>o << 2), sum);
  }
}

/** y [out] of one row of x [inner]; codes [out, inner] of int8, w = code·scale[out]. */
export function int8Product(x: usize, codes: usize, scale: usize, y: usize, inner: i32, out: i32): void {
  const whole = inner & ~15;
  for (let o = 0; o < out; o++) {
    const from = codes + <usize>o * inner;
    let a = f32x4.splat(0);
    let b = a;
    let i = 0;
    for (; i < whole; i += 16) {
      const v = v128.load(from + i);
      const low = i16x8.extend_low_i8x16_s(v);
      const high = i16x8.extend_high_i8x16_s(v);
      const at = x + (i << 2);
      a = fma(a, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low)), v128.load(at));
      b = fma(b, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low)), v128.load(at, 16));
      a = fma(a, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high)), v128.load(at, 32));
      b = fma(b, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high)), v128.load(at, 48));
    }
    let sum = sum4(f32x4.add(a, b));
    for (; i < inner; i++) sum += load<f32>(x + (i << 2)) * <f32>load<i8>(from + i);
    store<f32>(y + (<usize>o << 2), sum * load<f32>(scale + (<usize>o << 2)));
  }
}

/** Whole numbers are of 30 bits, a sign among them: what a float32 has of the largest value of a group, and more. */
const LIMIT: f32 = 536870912;

/**
 * x [inner] as whole multiples of its groups' largest magnitude / LIMIT, in two int16: the number is high·2¹⁵ + low, low from 0. In blocks of 32 channels
 * [4, 2, 8], channel 4·j + k at [k, high or low, j]; of each group the step, and the sums of high and low, [groups, 3].
 */
export function wholeInput(x: usize, blocked: usize, levels: usize, inner: i32, group: i32): void {
  const bits = i32x4.splat(32767);
  for (let g = 0; g * group < inner; g++) {
    const from = x + ((g * group) << 2);
    let most = f32x4.splat(1e-20);
    for (let i = 0; i < group; i += 4) most = f32x4.max(most, f32x4.abs(v128.load(from + (i << 2))));
    const largest = max(
      max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)),
      max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
    );
    const inverse = f32x4.splat(LIMIT / largest);
    let highs = i32x4.splat(0);
    let lows = highs;
    for (let i = 0; i < group; i += 4) {
      const whole = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(from + (i << 2)), inverse)));
      const high = i32x4.shr_s(whole, 15);
      const low = v128.and(whole, bits);
      highs = i32x4.add(highs, high);
      lows = i32x4.add(lows, low);
      const c = g * group + i;
      const at = blocked + (((c & ~31) << 2) + ((c & 31) >> 1));
      v128.store16_lane(at, high, 0);
      v128.store16_lane(at, low, 0, 16);
      v128.store16_lane(at, high, 2, 32);
      v128.store16_lane(at, low, 2, 48);
      v128.store16_lane(at, high, 4, 64);
      v128.store16_lane(at, low, 4, 80);
      v128.store16_lane(at, high, 6, 96);
      v128.store16_lane(at, low, 6, 112);
    }
    store<f32>(levels, largest / LIMIT);
    store<i32>(levels, total(highs), 4);
    store<i32>(levels, total(lows), 8);
    levels += 12;
  }
}

// @ts-ignore: decorator
@inline
function total(v: v128): i32 {
  return i32x4.extract_lane(v, 0) + i32x4.extract_lane(v, 1) + i32x4.extract_lane(v, 2) + i32x4.extract_lane(v, 3);
}

// @ts-ignore: decorator
@inline
function dotted(acc: v128, codes: v128, x: v128): v128 {
  return i32x4.add(acc, i32x4.dot_i16x8_s(codes, x));
}

/** Codes are 0 to 15: a sum begins with 8 taken from each of them. */
// @ts-ignore: decorator
@inline
function begin(sum: i32): v128 {
  return i32x4.replace_lane(i32x4.splat(0), 0, sum * -8);
}

/** What a group's sums of high and low add to a row. */
// @ts-ignore: decorator
@inline
function scaled(high: v128, low: v128, scale: f32, step: f32): v128 {
  const whole = fma(f32x4.convert_i32x4_s(low), f32x4.convert_i32x4_s(high), f32x4.splat(32768));
  return f32x4.mul(whole, f32x4.splat(scale * step));
}

/**
 * y [out] of one row of x as wholeInput leaves it: sums of a group are whole numbers, and exact. Codes [out, inner/2], the even channel in the low
 * nibble; levels [out, groups, 2].
 */
export function int4Product(
  blocked: usize,
  steps: usize,
  codes: usize,
  levels: usize,
  y: usize,
  inner: i32,
  group: i32,
  out: i32,
): void {
  const groups = inner / group;
  const row = <usize>inner >> 1;
  const levelRow = <usize>groups << 3;
  const mask = i16x8.splat(15);
  let o = 0;
  for (; o < out; o += 2) {
    // of an odd number the last row is multiplied twice
    const next: usize = o + 1 < out ? 1 : 0;
    let c = codes + <usize>o * row;
    const nextRow = next * row;
    let level = levels + <usize>o * levelRow;
    const nextLevel = next * levelRow;
    let x = blocked;
    let at = steps;
    let y0 = f32x4.splat(0);
    let y1 = y0;
    let rest0: f32 = 0;
    let rest1: f32 = 0;
    for (let g = 0; g < groups; g++) {
      const step = load<f32>(at);
      const highs = load<i32>(at, 4);
      const lows = load<i32>(at, 8);
      let h0 = begin(highs);
      let l0 = begin(lows);
      let h1 = h0;
      let l1 = l0;
      for (let i = 0; i < group; i += 32) {
        const v0 = v128.load(c);
        const v1 = v128.load(c + nextRow);
        let high = v128.load(x);
        let low = v128.load(x, 16);
        let a = v128.and(v0, mask);
        let b = v128.and(v1, mask);
        h0 = dotted(h0, a, high);
        l0 = dotted(l0, a, low);
        h1 = dotted(h1, b, high);
        l1 = dotted(l1, b, low);
        high = v128.load(x, 32);
        low = v128.load(x, 48);
        a = v128.and(i16x8.shr_u(v0, 4), mask);
        b = v128.and(i16x8.shr_u(v1, 4), mask);
        h0 = dotted(h0, a, high);
        l0 = dotted(l0, a, low);
        h1 = dotted(h1, b, high);
        l1 = dotted(l1, b, low);
        high = v128.load(x, 64);
        low = v128.load(x, 80);
        a = v128.and(i16x8.shr_u(v0, 8), mask);
        b = v128.and(i16x8.shr_u(v1, 8), mask);
        h0 = dotted(h0, a, high);
        l0 = dotted(l0, a, low);
        h1 = dotted(h1, b, high);
        l1 = dotted(l1, b, low);
        high = v128.load(x, 96);
        low = v128.load(x, 112);
        a = i16x8.shr_u(v0, 12);
        b = i16x8.shr_u(v1, 12);
        h0 = dotted(h0, a, high);
        l0 = dotted(l0, a, low);
        h1 = dotted(h1, b, high);
        l1 = dotted(l1, b, low);
        x += 128;
        c += 16;
      }
      y0 = f32x4.add(y0, scaled(h0, l0, load<f32>(level), step));
      y1 = f32x4.add(y1, scaled(h1, l1, load<f32>(level + nextLevel), step));
      const sum = (<f32>highs * 32768 + <f32>lows) * step;
      rest0 += load<f32>(level, 4) * sum;
      rest1 += load<f32>(level + nextLevel, 4) * sum;
      level += 8;
      at += 12;
    }
    store<f32>(y + (<usize>o << 2), sum4(y0) + rest0);
    if (next) store<f32>(y + (<usize>o << 2), sum4(y1) + rest1, 4);
  }
}

// @ts-ignore: decorator
@inline
function storeInt4(bytes: v128, to: usize, scale: v128, zero: v128): void {
  const eight = i16x8.splat(8);
  const low = i16x8.sub(i16x8.extend_low_i8x16_u(bytes), eight);
  const high = i16x8.sub(i16x8.extend_high_i8x16_u(bytes), eight);
  v128.store(to, f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low)), scale), zero));
  v128.store(to, f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low)), scale), zero), 16);
  v128.store(to, f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high)), scale), zero), 32);
  v128.store(to, f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high)), scale), zero), 48);
}

/** The weights [rows, inner] that rows of codes and levels stand for. */
export function int4Rows(codes: usize, levels: usize, to: usize, inner: i32, group: i32, rows: i32): void {
  const mask = i8x16.splat(15);
  const groups = rows * (inner / group);
  for (let g = 0; g < groups; g++) {
    const scale = v128.load32_splat(levels);
    const zero = v128.load32_splat(levels, 4);
    levels += 8;
    for (let i = 0; i < group; i += 32) {
      const v = v128.load(codes);
      const even = v128.and(v, mask);
      const odd = i8x16.shr_u(v, 4);
      storeInt4(v128.shuffle<i8>(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), to, scale, zero);
      storeInt4(v128.shuffle<i8>(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), to + 64, scale, zero);
      codes += 16;
      to += 128;
    }
  }
}

/** The weights [rows, inner] of int8. */
export function int8Rows(codes: usize, scale: usize, to: usize, inner: i32, rows: i32): void {
  for (let r = 0; r < rows; r++) {
    const s = load<f32>(scale + (<usize>r << 2));
    const s4 = f32x4.splat(s);
    let i = 0;
    for (; i + 8 <= inner; i += 8) {
      const v = v128.load8x8_s(codes);
      v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(v)), s4));
      v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(v)), s4), 16);
      codes += 8;
      to += 32;
    }
    for (; i < inner; i++) {
      store<f32>(to, <f32>load<i8>(codes) * s);
      codes++;
      to += 4;
    }
  }
}

/** `count` values of bfloat16 as float32. */
export function bf16Values(w: usize, to: usize, count: i32): void {
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const v = v128.load(w);
    v128.store(to, i32x4.shl(i32x4.extend_low_i16x8_u(v), 16));
    v128.store(to, i32x4.shl(i32x4.extend_high_i16x8_u(v), 16), 16);
    w += 16;
    to += 32;
  }
  for (; i < count; i++) {
    store<u32>(to, <u32>load<u16>(w) << 16);
    w += 2;
    to += 4;
  }
}
