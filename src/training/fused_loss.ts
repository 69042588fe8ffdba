/**
 * Head and cross-entropy in one, over chunks of the positions: logits [m, v] of a whole batch would be the largest
 * tensor of a training step (a batch of 8 x 2048 at 50,288 ids: 3.3 GB, and the tape keeps several). Here at most a
 * chunk of them exists at a time, and the gradients are made in the same pass, so that no product is made twice.
 */
import * as tf from '@tensorflow/tfjs';
import { isStored, type Weight, weightedCrossEntropy } from '../layers/index.js';
import { onGpu } from '../runtime/index.js';

/**
 * Bytes of logits that exist at a time. Each chunk adds to the gradient of the whole matrix, which on a CPU may exist several times
 * meanwhile: chunks of half the size took more memory. A GPU has more of it.
 */
const [CHUNK_BYTES, GPU_CHUNK_BYTES] = [2 ** 27, 2 ** 30];

/** Positions per chunk: even chunks of at most CHUNK_BYTES of logits, of GPU_CHUNK_BYTES on a GPU. */
export function chunkLength(positions: number, vocabulary: number): number {
  const most = Math.max(1, Math.floor((onGpu() ? GPU_CHUNK_BYTES : CHUNK_BYTES) / (4 * vocabulary)));
  return Math.ceil(positions / Math.ceil(positions / most));
}

interface Chunk {
  h: tf.Tensor2D;
  labels: tf.Tensor1D;
  weights: tf.Tensor1D;
}

function chunks(h: tf.Tensor2D, labels: tf.Tensor1D, weights: tf.Tensor1D, vocabulary: number): Chunk[] {
  const [m, d] = h.shape;
  const size = chunkLength(m, vocabulary);
  return Array.from({ length: Math.ceil(m / size) }, (_, i) => {
    const n = Math.min(size, m - i * size);
    return {
      h: tf.slice(h, [i * size, 0], [n, d]),
      labels: tf.slice(labels, [i * size], [n]),
      weights: tf.slice(weights, [i * size], [n]),
    };
  });
}

/** The largest of each row, [n, 1]; in two steps where that lets compiled code work on whole vectors. */
function rowMax(x: tf.Tensor2D): tf.Tensor2D {
  const [n, v] = x.shape;
  const lanes = [64, 32, 16, 8].find((k) => v % k === 0);
  if (!lanes) return tf.max(x, 1, true);
  return tf.max(tf.max(tf.reshape(x, [n, v / lanes, lanes]), 1), 1, true);
}

/** Loss and gradients of one chunk; dW only where asked. */
function chunkGradients(
  chunk: Chunk,
  w: tf.Tensor2D,
  wantsW: boolean,
): { loss: tf.Scalar; dh: tf.Tensor2D; dw: tf.Tensor2D | null } {
  const [n] = chunk.h.shape;
  const v = w.shape[0];
  const logits = tf.matMul(chunk.h, w, false, true) as tf.Tensor2D; // [n, v]
  const top = rowMax(logits); // [n, 1]
  const exponentials = tf.exp(tf.sub(logits, top)) as tf.Tensor2D; // [n, v]
  // a product with ones: a sum along rows is one long chain of additions in compiled code
  const sums = tf.matMul(exponentials, tf.ones([v, 1])); // [n, 1]
  const picked = tf.sum(tf.mul(chunk.h, tf.gather(w, chunk.labels)), 1, true);
  const column = tf.reshape(chunk.weights, [n, 1]);
  const loss = tf.sum(tf.mul(tf.sub(tf.add(tf.log(sums), top), picked), column)) as tf.Scalar;
  const hit = tf.equal(tf.reshape(tf.range(0, v, 1, 'int32'), [1, v]), tf.reshape(chunk.labels, [n, 1]));
  const right = tf.mul(tf.cast(hit, 'float32'), column); // under XLA it is never in memory
  const dlogits = tf.sub(tf.mul(exponentials, tf.div(column, sums)), right) as tf.Tensor2D; // [n, v]
  return {
    loss,
    dh: tf.matMul(dlogits, w) as tf.Tensor2D,
    dw: wantsW ? (tf.matMul(dlogits, chunk.h, true, false) as tf.Tensor2D) : null,
  };
}

/**
 * Σ over positions of weight·(-log softmax(h·Wᵀ)[label]), with gradients for h and, when W is a trained tensor, for W.
 *
 * @param h [m, d] @param w head [v, d], a tensor or a stored form @param labels int32 [m] @param weights [m]
 * @param trained whether the gradient of W is wanted
 * @returns scalar
 */
export function fusedCrossEntropy(
  h: tf.Tensor2D,
  w: Weight,
  labels: tf.Tensor1D,
  weights: tf.Tensor1D,
  trained: boolean,
): tf.Scalar {
  const v = w.shape[0];
  if (isStored(w)) {
    const sums = chunks(h, labels, weights, v).map((p) => weightedCrossEntropy(w.apply(p.h), p.labels, p.weights));
    return tf.addN(sums) as tf.Scalar;
  }
  const matrix = w as tf.Tensor2D;
  const both = (hidden: tf.Tensor2D, head: tf.Tensor2D): { value: tf.Scalar; dh: tf.Tensor; dw: tf.Tensor } => {
    const [value, dh, dw] = tf.tidy((): tf.Tensor[] => {
      const losses: tf.Tensor[] = [];
      const dhs: tf.Tensor[] = [];
      let sum: tf.Tensor | null = null; // Σ of the chunks' dW
      for (const chunk of chunks(hidden, labels, weights, v)) {
        const [loss, dh, own] = tf.tidy((): tf.Tensor[] => {
          const part = chunkGradients(chunk, head, trained);
          return part.dw ? [part.loss, part.dh, part.dw] : [part.loss, part.dh];
        });
        losses.push(loss!);
        dhs.push(dh!);
        if (own) sum = sum ? tf.add(sum, own) : own;
      }
      return [tf.addN(losses), tf.concat(dhs, 0), sum ?? tf.scalar(0)];
    });
    return { value: value as tf.Scalar, dh: dh!, dw: dw! };
  };
  type Save = (tensors: tf.Tensor[]) => void;
  if (!trained) {
    return tf.customGrad((x, save) => {
      const { value, dh } = both(x as tf.Tensor2D, matrix);
      (save as Save)([dh]);
      return { value, gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => tf.mul(saved[0]!, dy) };
    })(h) as tf.Scalar;
  }
  return tf.customGrad((x, head, save) => {
    const { value, dh, dw } = both(x as tf.Tensor2D, head as tf.Tensor2D);
    (save as Save)([dh, dw]);
    return { value, gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => [tf.mul(saved[0]!, dy), tf.mul(saved[1]!, dy)] };
  })(h, matrix) as tf.Scalar;
}

/** The logit of each row's label, [n, 1]. */
function pickedLogits(logits: tf.Tensor, labels: tf.Tensor1D): tf.Tensor {
  const [n, v] = logits.shape as [number, number];
  const hit = tf.equal(tf.reshape(tf.range(0, v, 1, 'int32'), [1, v]), tf.reshape(labels, [n, 1]));
  return tf.sum(tf.mul(logits, tf.cast(hit, 'float32')), 1, true);
}

/** The same sum without gradients, for evaluation. */
export function crossEntropySum(h: tf.Tensor2D, w: Weight, labels: tf.Tensor1D, weights: tf.Tensor1D): tf.Scalar {
  const v = w.shape[0];
  return tf.tidy(() => {
    const sums = chunks(h, labels, weights, v).map((p) =>
      tf.tidy(() => {
        const logits = isStored(w) ? w.apply(p.h) : tf.matMul(p.h, w as tf.Tensor2D, false, true);
        const top = rowMax(logits as tf.Tensor2D);
        const total = tf.matMul(tf.exp(tf.sub(logits, top)) as tf.Tensor2D, tf.ones([v, 1]));
        // a stored head may act otherwise on rows than in a product
        const picked = isStored(w)
          ? pickedLogits(logits, p.labels)
          : tf.sum(tf.mul(p.h, tf.gather(w, p.labels)), 1, true);
        return tf.sum(tf.mul(tf.sub(tf.add(tf.log(total), top), picked), tf.reshape(p.weights, [-1, 1]))) as tf.Scalar;
      }),
    );
    return tf.addN(sums) as tf.Scalar;
  });
}
