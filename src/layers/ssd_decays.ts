/** Decays of the SSD scan within chunks and between them, and where borders of documents cut them. Letters: see ssd.ts. */
import * as tf from '@tensorflow/tfjs';

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

/**
 * Log-decays from the start of a row to each position, inclusive. Decays between positions are exponentials of differences of these
 * sums, and a difference of two long sums in float32 would be off by the last digit of the sums: by 2e-3 for sums of 20,000. So what
 * rounding took from each sum is kept beside it.
 */
export interface LogDecays {
  /** [..., size], falling along the last axis */
  sums: tf.Tensor;
  /** What rounding took: exact sum = sums + rest; [..., size], without gradients */
  rest: tf.Tensor;
}

/** Least log-decay of a token: exp() of it and of anything below is 0 in float32, which a smaller one would change nothing of. */
const LEAST = -128;

/**
 * Sums of log-decays along the last axis, as a product with a triangle: tf.cumsum's gradient is wrong on other axes. Each value is
 * taken apart into a multiple of a grid, whose sums are exact in float32, and a remainder smaller than that, whose sums are small.
 * @param a log-decay of each token, 0 or below, [..., size]
 */
export function sumLogDecays(a: tf.Tensor): LogDecays {
  const size = a.shape[a.rank - 1]!;
  const m = a.size / size;
  const grid = 2 ** (Math.ceil(Math.log2(-LEAST * size)) - 24);
  const both = tf.customGrad((x, save) => {
    const values = x as tf.Tensor2D;
    const bounded = tf.maximum(values, LEAST);
    const coarse = tf.mul(tf.floor(tf.mul(bounded, 1 / grid)), grid);
    const parts = tf.concat([coarse, tf.sub(bounded, coarse)], 0); // [2·m, size]
    const [high, low] = tf.split(tf.matMul(parts, triangle(size, 'upper')), 2, 0) as [tf.Tensor, tf.Tensor];
    const sums = tf.add(high, low);
    (save as (tensors: tf.Tensor[]) => void)([values]);
    return {
      value: tf.concat([sums, tf.add(tf.sub(high, sums), low)], 0), // [2·m, size]
      gradFunc: (dy: tf.Tensor, [given]: tf.Tensor[]) => {
        const own = tf.slice(dy, [0, 0], [m, size]) as tf.Tensor2D;
        const inside = tf.cast(tf.greater(given!, LEAST), 'float32');
        return tf.mul(tf.matMul(own, triangle(size, 'lower')), inside);
      },
    };
  })(tf.reshape(a, [m, size]));
  const part = (from: number): tf.Tensor => tf.reshape(tf.slice(both, [from, 0], [m, size]), a.shape);
  return { sums: part(0), rest: part(m) };
}

/**
 * exp of the log-decay from j to i, for j <= i, else 0: [m, size] -> [m, size, size]. The difference is cut at 0 before exp: above
 * the diagonal it may overflow, and 0·inf would make the gradient NaN. The gradient is that of a difference: what a matrix of the
 * same shape sums up to along its rows, less along its columns. The diagonal, 1 whatever the sums are, is left out of both: where
 * decays are strong its gradients are far larger than all others, and would leave their rounding.
 */
export function decayMatrix({ sums, rest }: LogDecays): tf.Tensor {
  const [m, size] = sums.shape as [number, number];
  const differences = (x: tf.Tensor): tf.Tensor => tf.sub(tf.reshape(x, [m, size, 1]), tf.reshape(x, [m, 1, size])); // [m, i, j]
  return tf.customGrad((x, save) => {
    const exponent = tf.add(differences(x as tf.Tensor), differences(rest));
    const value = tf.mul(tf.exp(tf.minimum(exponent, 0)), triangle(size, 'lower'));
    (save as (tensors: tf.Tensor[]) => void)([value]);
    return {
      value,
      gradFunc: (dy: tf.Tensor, [decays]: tf.Tensor[]) => {
        const below = tf.sub(1, triangle(size, 'upper'));
        const change = tf.mul(tf.mul(dy, decays!), below); // [m, i, j]
        return tf.sub(tf.sum(change, 2), tf.sum(change, 1));
      },
    };
  })(sums);
}

/** exp of the log-decay from each position to the last: [..., size] -> [..., size], 1 at the last. Gradients as in decayMatrix. */
export function decaysToEnd({ sums, rest }: LogDecays): tf.Tensor {
  const { shape } = sums;
  const size = shape[shape.length - 1]!;
  if (size === 1) return tf.onesLike(sums);
  const m = sums.size / size;
  const toEnd = (x: tf.Tensor2D): tf.Tensor => tf.sub(tf.slice(x, [0, size - 1], [m, 1]), x); // [m, size]
  const flat = tf.reshape(rest, [m, size]) as tf.Tensor2D;
  const decays = tf.customGrad((x, save) => {
    const value = tf.exp(tf.add(toEnd(x as tf.Tensor2D), toEnd(flat)));
    (save as (tensors: tf.Tensor[]) => void)([value]);
    return {
      value,
      gradFunc: (dy: tf.Tensor, [given]: tf.Tensor[]) => {
        const last = tf.tensor2d([...new Array<number>(size - 1).fill(0), 1], [1, size]);
        const change = tf.mul(tf.mul(dy, given!), tf.sub(1, last)); // [m, size]
        return tf.sub(tf.mul(tf.sum(change, 1, true), last), change);
      },
    };
  })(tf.reshape(sums, [m, size]));
  return tf.reshape(decays, shape);
}

/** Where a decay may act: 1 within a document, 0 across a border. Factors of what they are multiplied with. */
export interface Borders {
  /** From position s to position q of a chunk, [b·c, 1, q, s] */
  within: tf.Tensor;
  /** From a position to the end of its chunk, [b·c, 1, q, 1] */
  toEnd: tf.Tensor;
  /** From the start of a chunk to a position, [b·c, 1, q, 1] */
  fromStart: tf.Tensor;
  /** From chunk boundary j to chunk boundary i, [b, 1, i, j] */
  between: tf.Tensor;
  /** From the start of a chunk to its end, [b, c, 1] */
  across: tf.Tensor;
}

/** The borders are masks on the decays and not huge negative log-decays: those would swallow the digits of the others. */
export function bordersOf(segments: tf.Tensor2D, c: number, q: number): Borders {
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
