/**
 * The state-space dual (SSD) scan of Mamba-2, as einsum contractions over chunks, and its single-step recurrence.
 * Paper: Dao and Gu 2024, "Transformers are SSMs", section 6 and listing 1. Hugging Face: modeling_mamba2.py.
 *
 * Glossary, the same letters everywhere in this package:
 *   b batch · t tokens · c chunks · q, s positions within a chunk · h heads · g groups · r heads per group (h = g·r)
 *   p head_dim · n state size · i, j chunk boundaries · k conv kernel taps · d channels
 *   m the chunks of all rows, b·c · x several dimensions in one · z the gate
 *
 * The recurrence, per head: S_t = exp(dt_t·A)·S_{t-1} + dt_t·x_t ⊗ B_t ;  y_t = S_t·C_t   (S is [p, n])
 * Within a chunk it is a masked product like attention; between chunks only the states are carried. All arithmetic is
 * float32 and no tensor is of rank above 5, so that every tfjs backend can run and differentiate it.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import { checkInputs, tensorOf } from './call_options.js';
import { einsum } from './einsum.js';
import { bordersOf, decayMatrix, sumLogDecays } from './ssd_decays.js';
import { productsOf } from './ssd_products.js';
import { betweenChunks } from './ssd_states.js';

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
  /** Products in bfloat16, and what passes between them through memory (ssd_products.ts). tensorflow backend. Default false. */
  bf16?: boolean;
}

export interface SsdOutputs {
  /** [b, t, h, p], without the D skip */
  y: tf.Tensor4D;
  /** State after the last token, [b, h, p, n] */
  finalState: tf.Tensor4D;
}

const SCAN_TABLE = new OptionTable<SsdInputs>(
  'ssdChunkScan()',
  {
    x: { kind: tensorOf('b, t, h, p') },
    dt: { kind: tensorOf('b, t, h') },
    A: { kind: tensorOf('h') },
    B: { kind: tensorOf('b, t, g, n') },
    C: { kind: tensorOf('b, t, g, n') },
    initialState: { kind: tensorOf('b, h, p, n') },
    segments: { kind: tensorOf('b, t') },
    bf16: { kind: kinds.boolean, default: false },
  },
  {
    others: {
      initial_state: 'initialState',
      initial_states: 'initialState',
      state: 'initialState',
      seq_idx: 'segments',
    },
  },
);

function check(inputs: SsdInputs): { b: number; t: number; h: number; p: number; g: number; n: number } {
  const [b, t, h, p] = inputs.x.shape;
  const [g, n] = [inputs.B.shape[2], inputs.B.shape[3]];
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
  checkInputs(SCAN_TABLE, inputs, ['x', 'dt', 'A', 'B', 'C']);
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
    const decays = sumLogDecays(a); // [bc, h, q]
    const X = tf.mul(tf.reshape(x, [bc, q, h, p]), tf.reshape(dt, [bc, q, h, 1])); // [bc, q, h, p]

    // 1. within each chunk; C·B is shared by the heads of a group
    const { toFloat32, toBf16 } = productsOf(inputs.bf16);
    const CB = einsum('mqgn,msgn->mgqs', C, B, toFloat32); // [bc, g, q, s]
    const borders = inputs.segments ? bordersOf(inputs.segments, c, q) : null;
    const open = decayMatrix({
      sums: tf.reshape(decays.sums, [bc * h, q]),
      rest: tf.reshape(decays.rest, [bc * h, q]),
    });
    const cut = borders ? tf.mul(tf.reshape(open, [bc, h, q, q]), borders.within) : open;
    const L = tf.reshape(cut, [bc * g, r, q, q]); // [bc·g, r, q, s]
    const M = tf.mul(tf.reshape(CB, [bc * g, 1, q, q]), L); // [bc·g, r, q, s]
    const heads = tf.reshape(tf.transpose(X, [0, 2, 1, 3]), [bc * h, q, p]);
    const within = toBf16(tf.reshape(M, [bc * h, q, q]), heads, false, false); // [bc·h, q, p]

    // 2. from chunk to chunk
    const { read, final } = betweenChunks({
      X,
      B,
      C,
      decays,
      initial: inputs.initialState,
      borders,
      b,
      c,
      bf16: inputs.bf16,
    });
    const own = tf.transpose(tf.reshape(within, [bc, h, q, p]), [0, 2, 1, 3]); // [bc, q, h, p]
    const joined = tf.reshape(read ? tf.add(own, read) : own, [b, c * q, h, p]);
    const whole = extra ? tf.slice(joined, [0, 0, 0, 0], [b, t, h, p]) : joined;
    return [whole, final];
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

const STEP_TABLE = new OptionTable<SsdStepInputs>(
  'ssdStep()',
  {
    x: { kind: tensorOf('b, h, p') },
    dt: { kind: tensorOf('b, h') },
    A: { kind: tensorOf('h') },
    B: { kind: tensorOf('b, g, n') },
    C: { kind: tensorOf('b, g, n') },
    state: { kind: tensorOf('b, h, p, n') },
  },
  { others: { initialState: 'state', ssm: 'state', ssm_state: 'state' } },
);

/**
 * One token of the same recurrence (spec B.5).
 * @returns y [b, h, p] without the D skip, and the new state [b, h, p, n]
 */
export function ssdStep(inputs: SsdStepInputs): { y: tf.Tensor3D; state: tf.Tensor4D } {
  checkInputs(STEP_TABLE, inputs, ['x', 'dt', 'A', 'B', 'C', 'state']);
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
  const [g, n] = [B.shape[1], B.shape[2]];
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
