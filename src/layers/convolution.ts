/**
 * Depthwise causal convolution over tokens, with a carried left context. Written as k shifted products: differentiable
 * on every backend (wasm has no gradient kernels for depthwise convolution) and fused by XLA.
 */
import * as tf from '@tensorflow/tfjs';
import { compilesForGpu } from '../jit/trace/backend.js';
import { gatherRows, roundToBf16 } from '../jit/index.js';
import { convolutionOnGpu, type ConvolutionInputs } from '../kernels/index.js';

export interface ConvOutputs {
  /** [b, t, d] */
  y: tf.Tensor3D;
  /** The last k-1 raw inputs of each row, [b, k-1, d]: the context of the next call */
  context: tf.Tensor3D;
}

/**
 * Ones where a row's next context lies: row b takes positions end_b … end_b+k-2 of the extended input, where end_b is
 * the count of positions up to its last real token.
 * @param mask [b, t] of 0 and 1 @returns [b, k-1, t+k-1]
 */
function contextSelector(mask: tf.Tensor2D, taps: number): tf.Tensor3D {
  const [b, t] = mask.shape;
  const positions = tf.reshape(tf.range(1, t + 1, 1, 'float32'), [1, t]);
  const end = tf.reshape(tf.max(tf.mul(mask, positions), 1), [b, 1, 1]);
  const columns = tf.reshape(tf.range(0, t + taps - 1, 1, 'float32'), [1, 1, t + taps - 1]);
  const offsets = tf.reshape(tf.range(0, taps - 1, 1, 'float32'), [1, taps - 1, 1]);
  return tf.cast(tf.equal(tf.sub(columns, offsets), end), 'float32') as tf.Tensor3D;
}

/**
 * For each tap but the last: 1 where the position it reads lies in the document of the position it writes, else 0.
 * @param segments [b, t] @returns k-1 of [b, t, 1]
 */
function sameDocument(segments: tf.Tensor2D, taps: number): tf.Tensor[] {
  const [b, t] = segments.shape;
  const first = tf.tile(tf.slice(segments, [0, 0], [b, 1]), [1, taps - 1]);
  const wide = tf.concat([first, segments], 1); // [b, t+k-1]
  return Array.from({ length: taps - 1 }, (_, i) => {
    const same = tf.equal(tf.slice(wide, [0, i], [b, t]), segments);
    return tf.reshape(tf.cast(same, 'float32'), [b, t, 1]);
  });
}

/** x moved on by some tokens, what comes in being the last of the context or zeros; by pads, which XLA fuses into whatever reads them. */
function shifted(x: tf.Tensor3D, by: number, context?: tf.Tensor3D): tf.Tensor {
  if (by === 0) return x;
  const [b, t, d] = x.shape;
  const kept = tf.pad(tf.slice(x, [0, 0, 0], [b, t - by, d]), [
    [0, 0],
    [by, 0],
    [0, 0],
  ]);
  if (!context) return kept;
  const before = tf.slice(context, [0, context.shape[1] - by, 0], [b, by, d]);
  return tf.add(
    kept,
    tf.pad(before, [
      [0, 0],
      [0, t - by],
      [0, 0],
    ]),
  );
}

/**
 * The context after one more token: the oldest goes, the newest comes.
 * @param context [b, k-1, d] @param newest [b, 1, d] @param mask [b, 1], 0 for rows that keep theirs
 */
export function movedContext(context: tf.Tensor3D, newest: tf.Tensor3D, mask?: tf.Tensor2D): tf.Tensor3D {
  const [b, kept, d] = context.shape;
  const moved = kept > 1 ? tf.concat([tf.slice(context, [0, 1, 0], [b, kept - 1, d]), newest], 1) : newest;
  return mask ? tf.where(tf.greater(tf.reshape(mask, [b, 1, 1]), 0), moved, context) : moved;
}

/** The k-1 raw inputs that end with each row's last real token, taken by their positions. @param mask [b, t] */
function contextByRows(x: tf.Tensor3D, left: tf.Tensor3D, mask: tf.Tensor2D): tf.Tensor {
  const [b, t, d] = x.shape;
  const kept = left.shape[1];
  if (t === 1) return movedContext(left, x, mask);
  const end = tf.max(tf.mul(mask, tf.reshape(tf.range(1, t + 1, 1, 'float32'), [1, t])), 1, true); // [b, 1]
  const from = tf.add(end, tf.reshape(tf.range(-kept, 0, 1, 'float32'), [1, kept])); // of x, [b, k-1]; before it when negative
  const rows = (source: tf.Tensor3D, at: tf.Tensor): tf.Tensor => {
    const length = source.shape[1];
    const first = tf.reshape(tf.range(0, b * length, length, 'float32'), [b, 1]);
    const place = tf.add(tf.clipByValue(at, 0, length - 1), first);
    return tf.reshape(
      gatherRows(tf.reshape(source, [b * length, d]), tf.cast(tf.reshape(place, [b * kept]), 'int32') as tf.Tensor1D),
      [b, kept, d],
    );
  };
  const within = tf.greaterEqual(tf.reshape(from, [b, kept, 1]), 0);
  return tf.where(within, rows(x, from), rows(left, tf.add(from, kept)));
}

export interface ConvOptions {
  /** Without a copy of x that is longer by the context. Default: on a GPU, where that copy costs more than all that is done with it. */
  inPlace?: boolean;
  /**
   * y is rounded to bfloat16, and its gradient: in memory so (roundToBf16), and by a kernel of our own where a GPU has it. Where x lies, which
   * that kernel reads: x may be other than that where the mask is 0. With a context, the masked positions of a row must follow its real ones.
   */
  rounded?: Pick<ConvolutionInputs, 'rows' | 'first'>;
}

/**
 * y[t] = bias + Σ_i weight[:, 0, i]·x[t-(k-1)+i], without activation; the last tap multiplies the current token.
 *
 * @param x raw inputs [b, t, d], zero at masked positions @param weight [d, 1, k] as in the checkpoint @param bias [d]
 * @param context the k-1 raw inputs before x, [b, k-1, d]; zeros when absent
 * @param mask [b, t] of 0 and 1: the context is then taken at each row's last real token
 * @param segments [b, t], the number of the document that each position belongs to, each document in one run: no tap
 *   reaches into another document. A context given belongs to the first one.
 * @param options see ConvOptions
 */
export function causalConv(
  x: tf.Tensor3D,
  weight: tf.Tensor,
  bias?: tf.Tensor,
  context?: tf.Tensor3D,
  mask?: tf.Tensor2D,
  segments?: tf.Tensor2D,
  { inPlace = compilesForGpu(), rounded }: ConvOptions = {},
): ConvOutputs {
  const [b, t, d] = x.shape;
  const k = weight.shape[2]!;
  const [y, next] = tf.tidy((): [tf.Tensor, tf.Tensor] => {
    const left = context ?? (tf.zeros([b, k - 1, d]) as tf.Tensor3D);
    const wide = k > 1 ? tf.concat([left, x], 1) : x; // [b, t+k-1, d]
    const sum = (): tf.Tensor => {
      const rows = tf.transpose(tf.reshape(weight, [d, k]), [1, 0]);
      const taps = k > 1 ? tf.split(rows, k, 0) : [rows]; // k of [1, d]; a split into one part has no gradient
      const reaches = segments && k > 1 ? sameDocument(segments, k) : null;
      const terms = taps.map((tap, i) => {
        const read = inPlace && k > 1 && t >= k ? shifted(x, k - 1 - i, context) : tf.slice(wide, [0, i, 0], [b, t, d]);
        const term = tf.mul(read, tf.reshape(tap, [1, 1, d]));
        return reaches && i < k - 1 ? tf.mul(term, reaches[i]!) : term;
      });
      return [...terms, ...(bias ? [bias] : [])].reduce((left, right) => tf.add(left, right));
    };
    // without a context a row may begin with masked positions, which the kernel would read as they lie
    const kernel = rounded && !segments && (context || !mask);
    const whole = kernel ? convolutionOnGpu({ x, ...rounded, weight, bias, context }) : null;
    const y = whole ?? (rounded ? roundToBf16(sum()) : sum());
    if (inPlace && mask && k > 1) return [y, contextByRows(x, left, mask)];
    const after = mask && k > 1 ? tf.matMul(contextSelector(mask, k), wide) : tf.slice(wide, [0, t, 0], [b, k - 1, d]);
    return [y, after];
  });
  return { y: y as tf.Tensor3D, context: next as tf.Tensor3D };
}
