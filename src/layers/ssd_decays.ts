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

/** Inclusive cumulative sum over the last axis, as a product with a triangle: tf.cumsum's gradient is wrong on other axes. */
export function cumulative(x: tf.Tensor): tf.Tensor {
  const size = x.shape[x.rank - 1]!;
  if (size === 1) return x;
  return tf.reshape(tf.matMul(tf.reshape(x, [-1, size]), triangle(size, 'upper')), x.shape);
}

/**
 * exp(cs_i - cs_j) for j <= i, else 0: [m, size] -> [m, size, size]. The difference is cut at 0 before exp: above the
 * diagonal it may overflow, and 0·inf would make the gradient NaN. The gradient is that of a difference: what a matrix of the
 * same shape sums up to along its rows, less along its columns.
 * @param cs falling along its rows
 */
export function decayMatrix(cs: tf.Tensor): tf.Tensor {
  const [m, size] = cs.shape as [number, number];
  return tf.customGrad((x, save) => {
    const sums = x as tf.Tensor;
    const difference = tf.sub(tf.reshape(sums, [m, size, 1]), tf.reshape(sums, [m, 1, size]));
    const value = tf.mul(tf.exp(tf.minimum(difference, 0)), triangle(size, 'lower'));
    (save as (tensors: tf.Tensor[]) => void)([value]);
    return {
      value,
      gradFunc: (dy: tf.Tensor, [decays]: tf.Tensor[]) => {
        const change = tf.mul(dy, decays!); // [m, i, j]
        return tf.sub(tf.sum(change, 2), tf.sum(change, 1));
      },
    };
  })(cs);
}

/** Where a decay may act: 1 within a document, 0 across a border. Factors of what they are multiplied with. */
export interface Borders {
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
