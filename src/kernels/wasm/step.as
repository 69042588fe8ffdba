/**
 * A model over tokens as a list of operations in memory, which threads work on together: each takes parts of an operation's outputs,
 * and none begins the next before all are done. program.ts writes the list, and names the words of an operation. "Rows" are tokens, as many as a word
 * says: those of a prompt, which follow one another in one state, or one of each text, each with a state of its own.
 */
import { bf16Product, bf16Values, dense, int4Product, int4Rows, int8Product, int8Rows, wholeInput } from './kernels';
import { exp1, fma, silu1, silu4, sum4 } from './vector';

/** Rows up to which a packed matrix is read anew for each of them. */
const FEW: i32 = 4;

// @ts-ignore: decorator
@inline
function word(op: usize, index: usize): i32 {
  return load<i32>(op + (index << 2));
}

// @ts-ignore: decorator
@inline
function real(op: usize, index: usize): f32 {
  return load<f32>(op + (index << 2));
}

/** Where a part of `count` begins, in whole multiples of a unit. */
// @ts-ignore: decorator
@inline
function partOf(count: i32, unit: i32, part: i32, parts: i32): i32 {
  return min(count, (((count + unit - 1) / unit) * part / parts) * unit);
}

/** log(1 + exp(x)). log(1 + e) itself loses what is small beside 1: the series of 2·atanh(e / (2 + e)) does not, and e is 1 at most. */
function softplus(x: f32): f32 {
  const e = exp1(-abs(x));
  const s = e / (2 + e);
  const q = s * s;
  const series: f32 = 1 + q * (<f32>(1.0 / 3.0) + q * (<f32>0.2 + q * (<f32>(1.0 / 7.0) + q * (<f32>(1.0 / 9.0) + q * (<f32>(1.0 / 11.0) + q * (<f32>(1.0 / 13.0) + q / 15)))))); // prettier-ignore
  return max<f32>(x, 0) + 2 * s * series;
}

/** x [inner] normed by groups of channels, times gamma. */
export function norm(x: usize, gamma: usize, y: usize, inner: i32, groups: i32, epsilon: f32): void {
  const span = inner / groups;
  for (let g = 0; g < groups; g++) {
    let squares = f32x4.splat(0);
    let i = 0;
    for (; i + 4 <= span; i += 4) {
      const v = v128.load(x + (i << 2));
      squares = fma(squares, v, v);
    }
    let sum = sum4(squares);
    for (; i < span; i++) sum += load<f32>(x + (i << 2)) * load<f32>(x + (i << 2));
    const factor: f32 = 1 / sqrt<f32>(sum / <f32>span + epsilon);
    for (i = 0; i + 4 <= span; i += 4)
      v128.store(y + (i << 2), f32x4.mul(f32x4.mul(v128.load(x + (i << 2)), f32x4.splat(factor)), v128.load(gamma + (i << 2)))); // prettier-ignore
    for (; i < span; i++) store<f32>(y + (i << 2), load<f32>(x + (i << 2)) * factor * load<f32>(gamma + (i << 2)));
    x += span << 2;
    gamma += span << 2;
    y += span << 2;
  }
}

/** Rows first to end of a product with one row. @param scratch for four bits, inner + 3·groups values */
function rowsOf(op: usize, x: usize, y: usize, first: i32, end: i32, scratch: usize): void {
  const bits = word(op, 2);
  const inner = word(op, 3);
  const codes = <usize>word(op, 5) + ((<usize>first * inner * bits) >> 3);
  const levels = <usize>word(op, 6);
  const group = word(op, 7);
  const out = end - first;
  if (bits == 4) {
    const groups = inner / group;
    const steps = scratch + (<usize>inner << 2);
    wholeInput(x, scratch, steps, inner, group);
    int4Product(scratch, steps, codes, levels + ((<usize>first * groups) << 3), y, inner, group, out);
  } else if (bits == 8) int8Product(x, codes, levels + (<usize>first << 2), y, inner, out);
  else if (bits == 16) bf16Product(x, codes, y, inner, out);
  else dense(x, codes, y, 1, inner, out, out);
}

/** y [count] (+)= sum [count], + bias */
function finish(y: usize, sum: usize, bias: usize, count: i32): void {
  const bytes = <usize>count << 2;
  if (sum != y) for (let i: usize = 0; i < bytes; i += 4) store<f32>(y + i, load<f32>(y + i) + load<f32>(sum + i));
  if (bias) for (let i: usize = 0; i < bytes; i += 4) store<f32>(y + i, load<f32>(y + i) + load<f32>(bias + i));
}

/** Rows first to end of a matrix as float32. */
function unpack(op: usize, first: i32, end: i32, to: usize): void {
  const bits = word(op, 2);
  const inner = word(op, 3);
  const levels = <usize>word(op, 6);
  const group = word(op, 7);
  const from = <usize>word(op, 5) + ((<usize>first * inner * bits) >> 3);
  const rows = end - first;
  if (bits == 4) int4Rows(from, levels + ((<usize>first * (inner / group)) << 3), to, inner, group, rows);
  else if (bits == 8) int8Rows(from, levels + (<usize>first << 2), to, inner, rows);
  else if (bits == 16) bf16Values(from, to, rows * inner);
  else memory.copy(to, from, (<usize>rows * inner) << 2);
}

/**
 * y [rows, out] (+)= x [rows, inner]·Wᵀ + bias. Of few rows each is multiplied out of the packed matrix; for more, `block` rows of the matrix at a time
 * are float32, in the scratch of each thread.
 */
function product(op: usize, part: i32, parts: i32, scratch: usize): void {
  const bits = word(op, 2);
  const inner = word(op, 3);
  const out = word(op, 4);
  const accumulate = word(op, 11) != 0;
  const block = word(op, 13);
  const bias = <usize>word(op, 10);
  let x = <usize>word(op, 8);
  let y = <usize>word(op, 9);
  const rows = load<i32>(<usize>word(op, 1));
  const first = partOf(out, 4, part, parts);
  const end = partOf(out, 4, part + 1, parts);
  if (first == end) return;
  if (bits == 32 ? rows == 1 : rows <= FEW) {
    for (let r = 0; r < rows; r++) {
      const to = y + (<usize>first << 2);
      const sum = accumulate ? scratch : to;
      rowsOf(op, x, sum, first, end, accumulate ? scratch + (<usize>(end - first) << 2) : scratch);
      finish(to, sum, bias ? bias + (<usize>first << 2) : 0, end - first);
      x += <usize>inner << 2;
      y += <usize>out << 2;
    }
    return;
  }
  const unpacked: usize = bits == 32 ? 0 : (<usize>block * inner) << 2;
  for (let from = first; from < end; from += block) {
    const count = min(end - from, block);
    let w = <usize>word(op, 5) + ((<usize>from * inner) << 2);
    if (bits != 32) {
      unpack(op, from, from + count, scratch);
      w = scratch;
    }
    let to = y + (<usize>from << 2);
    let sum = accumulate ? scratch + unpacked : to;
    dense(x, w, sum, rows, inner, count, accumulate ? count : out);
    if (!accumulate && !bias) continue;
    for (let r = 0; r < rows; r++) {
      finish(to, sum, bias ? bias + (<usize>from << 2) : 0, count);
      to += <usize>out << 2;
      sum += <usize>(accumulate ? count : out) << 2;
    }
  }
}

/** Each part norms some of the rows. */
function normRows(op: usize, part: i32, parts: i32): void {
  const inner = word(op, 3);
  const row = <usize>inner << 2;
  let x = <usize>word(op, 8);
  let y = <usize>word(op, 9);
  let rows = load<i32>(<usize>word(op, 1));
  if (word(op, 12)) {
    x += <usize>(rows - 1) * row;
    rows = 1;
  }
  for (let r = part; r < rows; r += parts)
    norm(x + <usize>r * row, <usize>word(op, 5), y + <usize>r * row, inner, word(op, 6), real(op, 7));
}

/**
 * Steps of the causal convolution with its SiLU, for each row: context [taps-1, channels] moves on where it lies, weights [taps, channels]. The context of
 * the next row is so many bytes further; 0 where it is the same.
 */
function convolution(op: usize, part: i32, parts: i32): void {
  const rows = load<i32>(<usize>word(op, 1));
  let context = <usize>word(op, 5);
  const weights = <usize>word(op, 6);
  const bias = <usize>word(op, 7);
  const channels = word(op, 3);
  const past = word(op, 4) - 1;
  const row = <usize>channels << 2;
  const begin = <usize>partOf(channels, 4, part, parts) << 2;
  const end = <usize>partOf(channels, 4, part + 1, parts) << 2;
  let raw = <usize>word(op, 8);
  let out = <usize>word(op, 9);
  for (let r = 0; r < rows; r++) {
    let c = begin;
    for (; c + 16 <= end; c += 16) {
      const newest = v128.load(raw + c);
      let sum = bias ? v128.load(bias + c) : f32x4.splat(0);
      let at = c;
      for (let j = 0; j < past; j++) {
        sum = fma(sum, v128.load(context + at), v128.load(weights + at));
        v128.store(context + at, j + 1 < past ? v128.load(context + at + row) : newest);
        at += row;
      }
      sum = fma(sum, newest, v128.load(weights + at));
      v128.store(out + c, silu4(sum));
    }
    for (; c < end; c += 4) {
      const newest = load<f32>(raw + c);
      let sum: f32 = bias ? load<f32>(bias + c) : 0;
      let at = c;
      for (let j = 0; j < past; j++) {
        sum += load<f32>(context + at) * load<f32>(weights + at);
        store<f32>(context + at, j + 1 < past ? load<f32>(context + at + row) : newest);
        at += row;
      }
      sum += newest * load<f32>(weights + at);
      store<f32>(out + c, silu1(sum));
    }
    raw += <usize>word(op, 10) << 2;
    context += <usize>word(op, 11);
    out += row;
  }
}

/** A row of a state [size]: s = s·decay + x·B. @returns s·C */
// @ts-ignore: decorator
@inline
function moveOn(state: usize, b: usize, c: usize, size: i32, decay: f32, x: f32): f32 {
  const d4 = f32x4.splat(decay);
  const x4 = f32x4.splat(x);
  const bytes = <usize>size << 2;
  let sum = f32x4.splat(0);
  let other = sum;
  let i: usize = 0;
  for (; i + 32 <= bytes; i += 32) {
    const s = fma(f32x4.mul(v128.load(state + i), d4), v128.load(b + i), x4);
    const t = fma(f32x4.mul(v128.load(state + i, 16), d4), v128.load(b + i, 16), x4);
    v128.store(state + i, s);
    v128.store(state + i, t, 16);
    sum = fma(sum, s, v128.load(c + i));
    other = fma(other, t, v128.load(c + i, 16));
  }
  let y = sum4(f32x4.add(sum, other));
  for (; i < bytes; i += 4) {
    const s = load<f32>(state + i) * decay + x * load<f32>(b + i);
    store<f32>(state + i, s);
    y += s * load<f32>(c + i);
  }
  return y;
}

/** The recurrence with skip and gate, row by row: states [heads, headDim, stateSize] move on where they lie, that of the next row so many bytes further. */
function recurrence(op: usize, part: i32, parts: i32): void {
  const rows = load<i32>(<usize>word(op, 1));
  const heads = word(op, 2);
  const headDim = word(op, 3);
  const size = word(op, 5);
  const perGroup = heads / word(op, 4);
  const rates = <usize>word(op, 6);
  const inner = heads * headDim;
  const channels = inner + 2 * word(op, 4) * size;
  // of a row: z | what is convolved | dt, and x | B | C
  const projectedRow = <usize>(inner + channels + heads) << 2;
  const convolvedRow = <usize>channels << 2;
  const stateRow = <usize>size << 2;
  const end = partOf(heads, 1, part + 1, parts);
  for (let h = partOf(heads, 1, part, parts); h < end; h++) {
    const at = <usize>h << 2;
    const bias = load<f32>(rates + at);
    const rate = exp1(load<f32>(rates + (<usize>heads << 2) + at));
    const skip = load<f32>(rates + (<usize>heads << 3) + at);
    const first = <usize>(h * headDim) << 2;
    const b = (<usize>inner << 2) + <usize>(h / perGroup) * stateRow;
    const c = b + ((<usize>word(op, 4) * size) << 2);
    let state = <usize>word(op, 7) + <usize>(h * headDim) * stateRow;
    let projected = <usize>word(op, 8);
    let convolved = <usize>word(op, 10);
    let y = <usize>word(op, 9) + first;
    for (let r = 0; r < rows; r++) {
      const raw = load<f32>(projected + (<usize>(inner + channels) << 2) + at);
      const dt = min(max(softplus(raw + bias), real(op, 11)), real(op, 12));
      const decay = exp1(-dt * rate);
      let own = state;
      for (let p: usize = 0; p < <usize>headDim << 2; p += 4) {
        const x = load<f32>(convolved + first + p);
        const sum = moveOn(own, convolved + b, convolved + c, size, decay, x * dt);
        store<f32>(y + p, (sum + x * skip) * silu1(load<f32>(projected + first + p)));
        own += stateRow;
      }
      projected += projectedRow;
      convolved += convolvedRow;
      state += <usize>word(op, 13);
      y += <usize>inner << 2;
    }
  }
}

/** The rows of a matrix that words in memory name. */
function lookup(op: usize, part: i32, parts: i32): void {
  const rows = load<i32>(<usize>word(op, 1));
  for (let r = part; r < rows; r += parts) {
    const id = load<i32>(<usize>word(op, 8) + (<usize>r << 2));
    unpack(op, id, id + 1, <usize>word(op, 9) + ((<usize>r * word(op, 3)) << 2));
  }
}

/** A part of an operation. Kinds are numbered as program.ts has them. */
export function operation(op: usize, part: i32, parts: i32, scratch: usize): void {
  switch (word(op, 0)) {
    case 0:
      return lookup(op, part, parts);
    case 1:
      return normRows(op, part, parts);
    case 2:
      return product(op, part, parts, scratch);
    case 3:
      return convolution(op, part, parts);
    case 4:
      return recurrence(op, part, parts);
    default:
      unreachable();
  }
}
