/**
 * The state-space dual (SSD) scan of Mamba-2, as einsum contractions over chunks, and its single-step recurrence.
 * Paper: Dao and Gu 2024, "Transformers are SSMs", section 6 and listing 1. Hugging Face: modeling_mamba2.py.
 *
 * Glossary, the same letters everywhere in this package:
 *   b batch · t tokens · c chunks · q, s positions within a chunk · h heads · g groups · r heads per group (h = g·r)
 *   p head_dim · n state size · z, j chunk boundaries · k conv kernel taps · d channels
 *
 * The recurrence, per head: S_t = exp(dt_t·A)·S_{t-1} + dt_t·x_t ⊗ B_t ;  y_t = S_t·C_t   (S is [p, n])
 * Within a chunk it is a masked product like attention; between chunks only the states are carried. All arithmetic is
 * float32 and no tensor is of rank above 5, so that every tfjs backend can run and differentiate it.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../errors/index.js';
import { batchMatMulBf16, linearRecurrence } from '../jit/index.js';
import { einsum } from './einsum.js';

export interface SsdInputs {
  /** Inputs after convolution and activation, [b, t, h, p] */
  x: tf.Tensor4D;
  /** Step sizes after softplus, limit and mask, [b, t, h]; 0 at a position means that it changes nothing */
  dt: tf.Tensor3D;
  /** -exp(A_log), [h] */
  A: tf.Tensor1D;
  /** Input projection of the state, [b, t, g, n]; head i uses group floor(i·g/h) */
  B: tf.Tensor4D;
  /** Output projection of the state, [b, t, g, n] */
  C: tf.Tensor4D;
  /** State before the first token, [b, h, p, n]; zeros when absent */
  initialState?: tf.Tensor4D;
  /**
   * Number of the document that each position belongs to, [b, t], each document in one run; one document when absent.
   * The state starts from zero at every border. An initial state belongs to the first document.
   */
  segments?: tf.Tensor2D;
  /** The products within chunks, by far the largest, in bfloat16 (batchMatMulBf16). tensorflow backend. Default false. */
  bf16?: boolean;
}

export interface SsdOutputs {
  /** [b, t, h, p], without the D skip */
  y: tf.Tensor4D;
  /** State after the last token, [b, h, p, n] */
  finalState: tf.Tensor4D;
}

const triangles = new Map<string, Float32Array>();

/** Ones on and below ('lower') or on and above ('upper') the diagonal, [size, size]. */
function triangle(size: number, side: 'lower' | 'upper'): tf.Tensor2D {
  const key = `${size}${side}`;
  let values = triangles.get(key);
  if (!values) {
    values = new Float32Array(size * size);
    for (let i = 0; i < size; i++)
      for (let j = 0; j < size; j++) if (side === 'lower' ? j <= i : j >= i) values[i * size + j] = 1;
    triangles.set(key, values);
  }
  // a copy: the native backend takes the array over
  return tf.tensor2d(values.slice(), [size, size]);
}

/** Inclusive cumulative sum over the last axis, as a product with a triangle: tf.cumsum's gradient is wrong on other axes. */
function cumulative(x: tf.Tensor): tf.Tensor {
  const size = x.shape[x.rank - 1]!;
  if (size === 1) return x;
  return tf.reshape(tf.matMul(tf.reshape(x, [-1, size]), triangle(size, 'upper')), x.shape);
}

/**
 * exp(cs_i - cs_j) for j <= i, else 0: [m, size] -> [m, size, size]. The difference is cut at 0 before exp: above the
 * diagonal it may overflow, and 0·inf would make the gradient NaN.
 */
function decayMatrix(cs: tf.Tensor): tf.Tensor {
  const [m, size] = cs.shape as [number, number];
  const difference = tf.sub(tf.reshape(cs, [m, size, 1]), tf.reshape(cs, [m, 1, size]));
  return tf.mul(tf.exp(tf.minimum(difference, 0)), triangle(size, 'lower'));
}

function check(inputs: SsdInputs): { b: number; t: number; h: number; p: number; g: number; n: number } {
  const [b, t, h, p] = inputs.x.shape;
  const [g, n] = [inputs.B.shape[2]!, inputs.B.shape[3]!];
  const expect = (name: string, got: number[], want: number[]): void => {
    if (got.length !== want.length || got.some((v, i) => v !== want[i])) {
      throw new ArgumentError(`SSD scan: ${name} has shape [${got}], expected [${want}]`, { name, got, want });
    }
  };
  expect('dt', inputs.dt.shape, [b, t, h]);
  expect('A', inputs.A.shape, [h]);
  expect('B', inputs.B.shape, [b, t, g, n]);
  expect('C', inputs.C.shape, [b, t, g, n]);
  if (inputs.initialState) expect('initialState', inputs.initialState.shape, [b, h, p, n]);
  if (inputs.segments) expect('segments', inputs.segments.shape, [b, t]);
  if (h % g !== 0) throw new ArgumentError(`SSD scan: ${g} groups do not divide ${h} heads`, { g, h });
  return { b, t, h, p, g, n };
}

/** Appends `extra` zero positions on axis 1. Zero dt means decay 1 and no input: the final state stays exact. */
function padTokens<T extends tf.Tensor>(x: T, extra: number): T {
  if (extra === 0) return x;
  const shape = [...x.shape];
  shape[1] = extra;
  return tf.concat([x, tf.zeros(shape)], 1) as T;
}

/** Where a decay may act: 1 within a document, 0 across a border. Factors of what they are multiplied with. */
interface Borders {
  /** From position s to position q of a chunk, [b·c, 1, q, s] */
  within: tf.Tensor;
  /** From a position to the end of its chunk, [b·c, 1, q, 1] */
  toEnd: tf.Tensor;
  /** From the start of a chunk to a position, [b·c, 1, q, 1] */
  fromStart: tf.Tensor;
  /** From chunk boundary j to chunk boundary z, [b, 1, z, j] */
  between: tf.Tensor;
  /** From the start of a chunk to its end, [b, c, 1] */
  across: tf.Tensor;
}

/** The borders are masks on the decays and not huge negative log-decays: those would swallow the digits of the others. */
function bordersOf(segments: tf.Tensor2D, c: number, q: number): Borders {
  const [b, t] = segments.shape;
  const same = (x: tf.Tensor, y: tf.Tensor): tf.Tensor => tf.cast(tf.equal(x, y), 'float32');
  const last = tf.slice(segments, [0, t - 1], [b, 1]);
  const padded = c * q > t ? tf.concat([segments, tf.tile(last, [1, c * q - t])], 1) : segments;
  const chunks = tf.reshape(padded, [b, c, q]);
  const ends = tf.reshape(tf.slice(chunks, [0, 0, q - 1], [b, c, 1]), [b, c]);
  const boundaries = tf.concat([tf.slice(segments, [0, 0], [b, 1]), ends], 1); // [b, c+1], a boundary is of what precedes it
  const starts = tf.slice(boundaries, [0, 0], [b, c]);
  const flat = tf.reshape(chunks, [b * c, 1, q, 1]);
  return {
    within: same(flat, tf.reshape(chunks, [b * c, 1, 1, q])),
    toEnd: same(flat, tf.reshape(ends, [b * c, 1, 1, 1])),
    fromStart: same(flat, tf.reshape(starts, [b * c, 1, 1, 1])),
    between: same(tf.reshape(boundaries, [b, 1, c + 1, 1]), tf.reshape(boundaries, [b, 1, 1, c + 1])),
    across: tf.reshape(same(starts, ends), [b, c, 1]),
  };
}

/**
 * States at the start of every chunk and after the last one, from each chunk's own contribution.
 * @param own [b, c, h, p·n] @param total log-decay over each whole chunk, [b, c, h]
 */
function carryStates(
  own: tf.Tensor,
  total: tf.Tensor,
  initial: tf.Tensor | undefined,
  borders: Borders | null,
): { starts: tf.Tensor; final: tf.Tensor } {
  const [b, c, h, pn] = own.shape as [number, number, number, number];
  const first = initial ? tf.reshape(initial, [b, 1, h, pn]) : tf.zeros([b, 1, h, pn]);
  if (c === 1) {
    if (!initial) return { starts: first, final: own };
    const decayed = tf.mul(first, tf.reshape(tf.exp(total), [b, 1, h, 1]));
    const reach = borders ? tf.reshape(borders.across, [b, 1, 1, 1]) : null;
    const kept = tf.add(own, reach ? tf.mul(decayed, reach) : decayed);
    return { starts: first, final: kept }; // [b, 1, h, p·n] both
  }
  const open = tf.exp(total);
  const kept = borders ? tf.mul(open, borders.across) : open; // [b, c, h]
  const carried = linearRecurrence(
    own as tf.Tensor4D,
    kept as tf.Tensor3D,
    initial && (tf.reshape(initial, [b, h, pn]) as tf.Tensor3D),
  );
  if (carried) {
    const last = (x: tf.Tensor, size: number): tf.Tensor => tf.slice(x, [0, c - 1, 0, 0], [b, 1, h, size]);
    const final = tf.add(tf.mul(last(carried, pn), last(tf.reshape(kept, [b, c, h, 1]), 1)), last(own, pn));
    return { starts: carried, final };
  }
  return carryByProduct(tf.concat([first, own], 1), total, borders?.between);
}

/** carryStates as one product with the decays from each boundary to each later one. @param states [b, j=c+1, h, p·n] */
function carryByProduct(
  states: tf.Tensor,
  total: tf.Tensor,
  between: tf.Tensor | undefined,
): { starts: tf.Tensor; final: tf.Tensor } {
  const [b, h, pn] = [states.shape[0]!, states.shape[2]!, states.shape[3]!];
  const c = states.shape[1]! - 1;
  const log = tf.concat([tf.zeros([b * h, 1]), cumulative(tf.reshape(tf.transpose(total, [0, 2, 1]), [b * h, c]))], 1); // [b·h, j]
  const open = tf.reshape(decayMatrix(log), [b, h, c + 1, c + 1]); // [b, h, z, j]
  const decay = between ? tf.mul(open, between) : open;
  const all = einsum('bhzj,bjhx->bzhx', decay, states); // [b, z, h, p·n]
  return { starts: tf.slice(all, [0, 0, 0, 0], [b, c, h, pn]), final: tf.slice(all, [0, c, 0, 0], [b, 1, h, pn]) };
}

/**
 * The scan over any number of tokens, in chunks of `chunkSize` (a matter of speed only).
 *
 * @param inputs see SsdInputs; float32
 * @param chunkSize positive; the last chunk is padded, exactly
 * @throws ArgumentError when shapes disagree
 * @example
 * const { y, finalState } = ssdChunkScan({ x, dt, A, B, C }, 64); // y [b, t, h, p]
 */
export function ssdChunkScan(inputs: SsdInputs, chunkSize: number): SsdOutputs {
  const { b, t, h, p, g, n } = check(inputs);
  if (!(Number.isInteger(chunkSize) && chunkSize > 0)) {
    throw new ArgumentError(`SSD scan: chunk size ${chunkSize} is not a positive integer`, { chunkSize });
  }
  const q = Math.min(chunkSize, t);
  const c = Math.ceil(t / q);
  const r = h / g;
  const bc = b * c;
  const [y, finalState] = tf.tidy((): [tf.Tensor, tf.Tensor] => {
    const extra = c * q - t;
    const dt = padTokens(inputs.dt, extra); // [b, c·q, h]
    const x = padTokens(inputs.x, extra); // [b, c·q, h, p]
    const B = tf.reshape(padTokens(inputs.B, extra), [bc, q, g, n]);
    const C = tf.reshape(padTokens(inputs.C, extra), [bc, q, g, n]);

    const steps = tf.transpose(tf.reshape(dt, [bc, q, h]), [0, 2, 1]); // [bc, h, q]
    const a = tf.mul(steps, tf.reshape(inputs.A, [1, h, 1])); // log-decay of each token, [bc, h, q]
    const cs = cumulative(a); // [bc, h, q]
    const last = tf.slice(cs, [0, 0, q - 1], [bc, h, 1]); // [bc, h, 1]
    const X = tf.mul(tf.transpose(tf.reshape(x, [bc, q, h, p]), [0, 2, 1, 3]), tf.reshape(steps, [bc, h, q, 1])); // [bc, h, q, p]

    // 1. within each chunk; C·B is shared by the heads of a group
    const CB = einsum('zqgn,zsgn->zgqs', C, B); // [bc, g, q, s]
    const borders = inputs.segments ? bordersOf(inputs.segments, c, q) : null;
    const open = decayMatrix(tf.reshape(cs, [bc * h, q]));
    const cut = borders ? tf.mul(tf.reshape(open, [bc, h, q, q]), borders.within) : open;
    const L = tf.reshape(cut, [bc * g, r, q, q]); // [bc·g, r, q, s]
    const M = tf.mul(tf.reshape(CB, [bc * g, 1, q, q]), L); // [bc·g, r, q, s]
    const multiply = inputs.bf16 ? batchMatMulBf16 : (x: tf.Tensor3D, y: tf.Tensor3D): tf.Tensor => tf.matMul(x, y);
    const within = multiply(tf.reshape(M, [bc * h, q, q]), tf.reshape(X, [bc * h, q, p])); // [bc·h, q, p]

    // 2. what each chunk adds to the state at its end
    const endDecay = tf.reshape(tf.exp(tf.sub(last, cs)), [bc, h, q, 1]);
    const toEnd = tf.mul(X, borders ? tf.mul(endDecay, borders.toEnd) : endDecay); // [bc, h, q, p]
    const own = einsum('zgrqp,zqgn->zgrpn', tf.reshape(toEnd, [bc, g, r, q, p]), B); // [bc, g, r, p, n]

    // 3. states carried from chunk to chunk
    const { starts, final } = carryStates(
      tf.reshape(own, [b, c, h, p * n]),
      tf.reshape(last, [b, c, h]),
      inputs.initialState,
      borders,
    );

    // 4. what the state at the start of a chunk gives to each of its positions
    let sum: tf.Tensor = tf.reshape(within, [bc, h, q, p]);
    if (c > 1 || inputs.initialState) {
      const read = einsum('zqgn,zgrpn->zgrqp', C, tf.reshape(starts, [bc, g, r, p, n])); // [bc, g, r, q, p]
      const startDecay = tf.reshape(tf.exp(cs), [bc, h, q, 1]);
      const reach = borders ? tf.mul(startDecay, borders.fromStart) : startDecay;
      sum = tf.add(sum, tf.mul(tf.reshape(read, [bc, h, q, p]), reach));
    }
    const joined = tf.reshape(tf.transpose(sum, [0, 2, 1, 3]), [b, c * q, h, p]); // [b, c·q, h, p]
    const whole = extra ? tf.slice(joined, [0, 0, 0, 0], [b, t, h, p]) : joined;
    return [whole, tf.reshape(final, [b, h, p, n])];
  });
  return { y: y as tf.Tensor4D, finalState: finalState as tf.Tensor4D };
}

export interface SsdStepInputs {
  /** [b, h, p] */
  x: tf.Tensor3D;
  /** [b, h], after softplus, limit and mask */
  dt: tf.Tensor2D;
  /** [h] */
  A: tf.Tensor1D;
  /** [b, g, n] */
  B: tf.Tensor3D;
  /** [b, g, n] */
  C: tf.Tensor3D;
  /** [b, h, p, n] */
  state: tf.Tensor4D;
}

/**
 * One token of the same recurrence (spec B.5).
 * @returns y [b, h, p] without the D skip, and the new state [b, h, p, n]
 */
export function ssdStep(inputs: SsdStepInputs): { y: tf.Tensor3D; state: tf.Tensor4D } {
  const { x, dt, A, B, C, state } = inputs;
  const [b, h] = x.shape;
  return tf.tidy(() => {
    const scaled = tf.mul(x, tf.reshape(dt, [b, h, 1])) as tf.Tensor3D;
    return ssdAdvance({ scaled, decay: tf.exp(tf.mul(dt, A)) as tf.Tensor2D, B, C, state });
  });
}

/**
 * ssdStep from what it works out first.
 * @param inputs x·dt, [b, h, p], and exp(dt·A), [b, h]; the rest as in SsdStepInputs
 */
export function ssdAdvance(
  inputs: { scaled: tf.Tensor3D; decay: tf.Tensor2D } & Pick<SsdStepInputs, 'B' | 'C' | 'state'>,
): { y: tf.Tensor3D; state: tf.Tensor4D } {
  const { scaled, B, C, state } = inputs;
  const [b, h, p] = scaled.shape;
  const [g, n] = [B.shape[1]!, B.shape[2]!];
  const r = h / g;
  const [y, next] = tf.tidy((): [tf.Tensor, tf.Tensor] => {
    const decay = tf.reshape(inputs.decay, [b * g, r, 1, 1]);
    const X = tf.reshape(scaled, [b * g, r, p, 1]);
    const kept = tf.mul(tf.reshape(state, [b * g, r, p, n]), decay);
    const S = tf.add(kept, tf.mul(X, tf.reshape(B, [b * g, 1, 1, n]))); // [b·g, r, p, n]
    // a product with C and not a sum of products: one pass over the state when compiled, where a long sum takes three
    const out = tf.matMul(tf.reshape(S, [b * g, r * p, n]), tf.reshape(C, [b * g, n, 1])); // [b·g, r·p, 1]
    return [tf.reshape(out, [b, h, p]), tf.reshape(S, [b, h, p, n])];
  });
  return { y: y as tf.Tensor3D, state: next as tf.Tensor4D };
}
