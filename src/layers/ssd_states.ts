/**
 * What the chunks of an SSD scan hand on: each chunk's own contribution to the state, the states at their starts, and what those give
 * to each position. Two forms of the same sums, by the order in which a state lies: on GPUs head after head, as the kernel that carries
 * states takes them; elsewhere as the products of whole chunks have them, [n, h·p], whose inputs then lie as the layers made them and need
 * no transposed copies. Letters: see ssd.ts.
 */
import * as tf from '@tensorflow/tfjs';
import { compilesForGpu } from '../jit/trace/backend.js';
import { linearRecurrence } from '../kernels/index.js';
import { materialise } from '../jit/fusion/materialise.js';
import { einsum } from './einsum.js';
import { type Borders, decayMatrix, decaysToEnd, type LogDecays, sumLogDecays } from './ssd_decays.js';
import { productsOf } from './ssd_products.js';

export interface ChunkInputs {
  /** x·dt, [b·c, q, h, p] */
  X: tf.Tensor;
  /** [b·c, q, g, n] */
  B: tf.Tensor;
  /** [b·c, q, g, n] */
  C: tf.Tensor;
  /** Log-decays from the start of a chunk to each position, inclusive, [b·c, h, q] */
  decays: LogDecays;
  /** State before the first token, [b, h, p, n] */
  initial: tf.Tensor | undefined;
  borders: Borders | null;
  b: number;
  c: number;
  /** See SsdInputs.bf16; where states lie head after head. */
  bf16?: boolean;
}

export interface ChunkOutputs {
  /** What the state at the start of a chunk gives to its positions, [b·c, q, h, p]; null where no chunk starts with one */
  read: tf.Tensor | null;
  /** State after the last token, [b, h, p, n] */
  final: tf.Tensor;
}

/** @returns see ChunkOutputs */
export function betweenChunks(inputs: ChunkInputs): ChunkOutputs {
  return compilesForGpu() ? headsFirst(inputs) : headsLast(inputs);
}

/** Log-decay over each whole chunk, [b·c, h, 1]. */
function wholeChunk({ sums }: LogDecays): tf.Tensor {
  const [bc, h, q] = sums.shape as [number, number, number];
  return tf.slice(sums, [0, 0, q - 1], [bc, h, 1]);
}

/** States as [b, c, h, p, n]. */
function headsFirst({ X, B, C, decays, initial, borders, b, c, bf16 = false }: ChunkInputs): ChunkOutputs {
  const { toFloat32, toBf16 } = productsOf(bf16);
  const [bc, q, h, p] = X.shape as [number, number, number, number];
  const [g, n] = [B.shape[2]!, B.shape[3]!];
  const r = h / g;
  const last = wholeChunk(decays);
  const heads = tf.transpose(X, [0, 2, 1, 3]); // [bc, h, q, p]
  const endDecay = tf.reshape(decaysToEnd(decays), [bc, h, q, 1]);
  const toEnd = tf.mul(heads, borders ? tf.mul(endDecay, borders.toEnd) : endDecay); // [bc, h, q, p]
  const own = einsum('mgrqp,mqgn->mgrpn', tf.reshape(toEnd, [bc, g, r, q, p]), B, toFloat32); // [bc, g, r, p, n]
  const total = tf.reshape(last, [b, c, h]);
  const { starts, final } = carryStates(tf.reshape(own, [b, c, h, p * n]), total, initial, borders, bf16);
  if (c === 1 && !initial) return { read: null, final: tf.reshape(final, [b, h, p, n]) };
  const given = einsum('mqgn,mgrpn->mgrqp', C, tf.reshape(starts, [bc, g, r, p, n]), toBf16); // [bc, g, r, q, p]
  const startDecay = tf.reshape(tf.exp(decays.sums), [bc, h, q, 1]);
  const reach = borders ? tf.mul(startDecay, borders.fromStart) : startDecay;
  const read = tf.transpose(tf.mul(tf.reshape(given, [bc, h, q, p]), reach), [0, 2, 1, 3]);
  return { read, final: tf.reshape(final, [b, h, p, n]) };
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
  bf16: boolean,
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
    bf16 ? 'bfloat16' : 'float32',
  );
  if (carried) {
    const last = (x: tf.Tensor, size: number): tf.Tensor => tf.slice(x, [0, c - 1, 0, 0], [b, 1, h, size]);
    const final = tf.add(tf.mul(last(carried, pn), last(tf.reshape(kept, [b, c, h, 1]), 1)), last(own, pn));
    return { starts: carried, final };
  }
  const chunks = tf.reshape(tf.transpose(total, [0, 2, 1]), [b * h, c]);
  const log = sumLogDecays(tf.concat([tf.zeros([b * h, 1]), chunks], 1)); // [b·h, j]
  const all = carryByProduct(tf.concat([first, own], 1), log, borders?.between); // [b, i, h, p·n]
  return { starts: tf.slice(all, [0, 0, 0, 0], [b, c, h, pn]), final: tf.slice(all, [0, c, 0, 0], [b, 1, h, pn]) };
}

/**
 * States at some chunk boundaries, from what comes in at each, as one product with the decays from each boundary to each later one.
 * @param states [b, j, h, p·n] @param log log-decay from the first boundary to each, [b·h, j] @param between see Borders
 * @returns [b, i, h, p·n], i over the same boundaries as j
 */
function carryByProduct(states: tf.Tensor, log: LogDecays, between: tf.Tensor | undefined): tf.Tensor {
  const [b, j, h] = states.shape as [number, number, number];
  const open = tf.reshape(decayMatrix(log), [b, h, j, j]); // [b, h, i, j]
  return einsum('bhij,bjhx->bihx', between ? tf.mul(open, between) : open, states);
}

/** x [b, c, ...] after so many chunks of zeros. */
function after(x: tf.Tensor, count: number): tf.Tensor {
  return tf.pad(x, [[0, 0], [count, 0], ...x.shape.slice(2).map((): [number, number] => [0, 0])]);
}

/**
 * States after each of some steps: y_0 = x_0, y_i = kept_(i-1)·y_(i-1) + x_i. With gradients, whose states are carried backwards.
 * @param x [b, c, g·n·r·p] @param kept [b, c-1, h] @param groups g @param p head_dim
 * @returns as x
 */
function carried(x: tf.Tensor, kept: tf.Tensor, groups: number, p: number): tf.Tensor {
  const [b, c, size] = x.shape as [number, number, number];
  const h = kept.shape[2]!;
  const [g, r] = [groups, h / groups];
  const n = size / (h * p);
  const at = (all: tf.Tensor, i: number): tf.Tensor =>
    tf.reshape(tf.slice(all, [0, i, 0], [b, 1, size]), [b, g, n, r, p]);
  /** One step: old·kept + added, in memory, for the next and the result both read it. */
  const step = (old: tf.Tensor, keep: tf.Tensor, i: number, added: tf.Tensor): tf.Tensor => {
    const factor = tf.reshape(tf.slice(keep, [0, i, 0], [b, 1, h]), [b, g, 1, r, 1]);
    return materialise(tf.add(tf.mul(old, factor), added), keep);
  };
  const joined = (states: tf.Tensor[]): tf.Tensor => {
    const rows = states.map((state) => tf.reshape(state, [b, 1, size]));
    return tf.concat(rows, 1);
  };
  return tf.customGrad((...args) => {
    const save = args.pop() as (tensors: tf.Tensor[]) => void;
    const [xs, keep] = args as tf.Tensor[] as [tf.Tensor, tf.Tensor];
    const states = [at(xs, 0)];
    for (let i = 1; i < c; i++) states.push(step(states[i - 1]!, keep, i - 1, at(xs, i)));
    const value = joined(states);
    save([keep, value]);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]): tf.Tensor[] => {
      const [given, ys] = saved as [tf.Tensor, tf.Tensor];
      const back = [at(dy, c - 1)]; // from the last to the first
      for (let i = c - 2; i >= 0; i--) back.push(step(back[back.length - 1]!, given, i, at(dy, i)));
      const dx = joined(back.reverse());
      // rows 1 to c-1 times the states before them; whole rows are added first, as compiled code does fast
      const before = after(tf.slice(ys, [0, 0, 0], [b, c - 1, size]), 1);
      const products = tf.reshape(tf.mul(dx, before), [b * c * g, n, r * p]);
      const sums = tf.sum(tf.reshape(tf.sum(products, 1), [b, c, h, p]), 3);
      return [dx, tf.slice(sums, [0, 1, 0], [b, c - 1, h])];
    };
    return { value, gradFunc };
  })(x, kept);
}

/**
 * States as [b, c, g·n·r·p]. Without an initial state the first chunk starts with none and reads none, and what the last one adds is
 * part of the final state alone: products that training does not need are then in no compiled program.
 */
function headsLast({ X, B, C, decays, initial, borders, b, c }: ChunkInputs): ChunkOutputs {
  const [bc, q, h, p] = X.shape as [number, number, number, number];
  const [g, n] = [B.shape[2]!, B.shape[3]!];
  const r = h / g;
  const size = n * h * p;
  /** Some chunks of each row, of a tensor over all chunks. */
  const chunks = (x: tf.Tensor, from: number, count: number): tf.Tensor => {
    const each = x.size / bc;
    const some = tf.slice(tf.reshape(x, [b, c, each]), [0, from, 0], [b, count, each]);
    return tf.reshape(some, [b * count, ...x.shape.slice(1)]);
  };
  /** A factor of each position and head, [b·c, h, q], and where it may act, as [b·c, q, h, 1]. */
  const factor = (x: tf.Tensor, where?: tf.Tensor): tf.Tensor => {
    const open = tf.reshape(tf.transpose(x, [0, 2, 1]), [bc, q, h, 1]);
    return where ? tf.mul(open, tf.reshape(where, [bc, q, 1, 1])) : open;
  };
  const last = wholeChunk(decays);
  const toEnd = tf.reshape(tf.mul(X, factor(decaysToEnd(decays), borders?.toEnd)), [bc, q, g, r * p]);
  /** What some chunks add to the state, [b, count, size]. */
  const own = (from: number, count: number): tf.Tensor =>
    tf.reshape(einsum('mqgn,mqgx->mgnx', chunks(B, from, count), chunks(toEnd, from, count)), [b, count, size]);
  const open = tf.exp(tf.reshape(last, [b, c, h]));
  const kept = borders ? tf.mul(open, borders.across) : open; // [b, c, h]
  const first = initial ? 0 : 1; // chunks from here on start with a state
  const count = c - first;
  let final = own(c - 1, 1); // [b, 1, size]
  let read: tf.Tensor | null = null;
  if (count > 0) {
    const before = initial && tf.reshape(tf.transpose(tf.reshape(initial, [b * g, r * p, n]), [0, 2, 1]), [b, 1, size]);
    const earlier = c > 1 ? own(0, c - 1) : null;
    const states = before && earlier ? tf.concat([before, earlier], 1) : (before ?? earlier)!; // [b, count, size]
    const starts = count > 1 ? carried(states, tf.slice(kept, [0, first, 0], [b, count - 1, h]), g, p) : states;
    const lastStart = tf.reshape(tf.slice(starts, [0, count - 1, 0], [b, 1, size]), [b, g, n, r, p]);
    const reaches = tf.reshape(tf.slice(kept, [0, c - 1, 0], [b, 1, h]), [b, g, 1, r, 1]);
    final = tf.add(final, tf.reshape(tf.mul(lastStart, reaches), [b, 1, size]));
    const given = einsum('mqgn,mgnx->mqgx', chunks(C, first, count), tf.reshape(starts, [b * count, g, n, r * p]));
    const reach = chunks(factor(tf.exp(decays.sums), borders?.fromStart), first, count); // [b·count, q, h, 1]
    const some = tf.reshape(tf.mul(tf.reshape(given, [b * count, q, h, p]), reach), [b, count, q * h * p]);
    read = tf.reshape(first === 0 ? some : after(some, first), [bc, q, h, p]);
  }
  return { read, final: tf.reshape(tf.transpose(tf.reshape(final, [b * g, n, r * p]), [0, 2, 1]), [b, h, p, n]) };
}
