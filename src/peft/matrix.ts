/** A base matrix with low-rank adapters on top, as the layers see it: pure functions of tensors, for eager and traced code. */
import * as tf from '@tensorflow/tfjs';
import { isTracing } from '../jit/trace/backend.js';
import { type ArrayPart, partShape, takePart } from '../base/array_parts.js';
import { ArgumentError } from '../base/errors.js';
import { bytesOfTensor } from '../engine/file_tensors.js';
import { statelessUniform, type VariableSpec } from '../jit/index.js';
import {
  float32Storage,
  isStored,
  linear,
  lookup,
  type StoredMatrix,
  type Weight,
  type WeightStorage,
} from '../layers/index.js';

/** One adapter of one matrix. */
export interface LowRank {
  /** Linear: A [r, in] and B [out, r]. Embedding: A [r, v] and B [d, r]. */
  A: tf.Tensor2D;
  B: tf.Tensor2D;
  scale: number;
  /** Share of inputs set to zero; acts only with a seed. */
  dropout: number;
}

/** Adapters of one stored matrix, by where they act. */
export interface MatrixAdapters {
  /** On the product x·Wᵀ: a projection, or a head (which, when tied, is the embedding's matrix). */
  linear: readonly LowRank[];
  /** On the lookup of rows. */
  embedding: readonly LowRank[];
}

/** Randomness of one training step: int32 [2]; absent outside of training. */
export interface DropoutSeed {
  seed: tf.Tensor1D;
  /** Number of the matrix, so that each has its own mask. */
  index: number;
}

function dropped(x: tf.Tensor2D, rate: number, random: DropoutSeed | undefined): tf.Tensor2D {
  if (rate === 0 || !random) return x;
  return tf.tidy(() => {
    const seed = tf.add(random.seed, tf.tensor1d([0, random.index], 'int32')) as tf.Tensor1D;
    const native = isTracing() || tf.getBackend() === 'tensorflow';
    const uniform = native
      ? statelessUniform(x.shape, seed)
      : tf.randomUniform(
          x.shape,
          0,
          1,
          'float32',
          [...seed.dataSync()].reduce((a, b) => a * 65537 + b, 1),
        );
    return tf.mul(x, tf.div(tf.cast(tf.greaterEqual(uniform, rate), 'float32'), 1 - rate)) as tf.Tensor2D;
  });
}

/** scale·(x·Aᵀ)·Bᵀ, [m, out]: two thin products, never the full matrix. */
function lowRankProduct(x: tf.Tensor2D, { A, B, scale }: LowRank): tf.Tensor2D {
  return tf.mul(tf.matMul(tf.matMul(x, A, false, true), B, false, true), scale) as tf.Tensor2D;
}

/** scale·(A[:, ids])ᵀ·Bᵀ, [m, d] */
function lowRankRows(ids: tf.Tensor1D, { A, B, scale }: LowRank): tf.Tensor2D {
  return tf.mul(tf.matMul(tf.gather(tf.transpose(A), ids), B, false, true), scale) as tf.Tensor2D;
}

/**
 * W + scale·B·A without ever making the sum: y = x·Wᵀ + scale·(dropout(x)·Aᵀ)·Bᵀ (LoRA, Hu et al. 2021, section 4.1).
 * The base may be a tensor or any stored form, such as packed integers.
 */
export function loraMatrix(base: Weight, adapters: MatrixAdapters, random?: DropoutSeed): StoredMatrix {
  return {
    shape: base.shape,
    apply: (x) =>
      tf.tidy(() => {
        const y = linear(x, base) as tf.Tensor2D;
        return adapters.linear.reduce(
          (sum, one) => tf.add(sum, lowRankProduct(dropped(x, one.dropout, random), one)),
          y,
        );
      }),
    rows: (ids) =>
      tf.tidy(() =>
        adapters.embedding.reduce((sum, one) => tf.add(sum, lowRankRows(ids, one)), lookup(ids, base) as tf.Tensor2D),
      ),
  };
}

/** The matrix that an adapter adds: scale·B·A [out, in], or its transpose [v, d] for an embedding. */
export function lowRankDelta({ A, B, scale }: LowRank, kind: 'linear' | 'embedding'): tf.Tensor2D {
  return tf.tidy(() => {
    const product = kind === 'linear' ? tf.matMul(B, A) : tf.matMul(A, B, true, true);
    return tf.mul(product, scale) as tf.Tensor2D;
  });
}

/** How a base is kept in a compiled program: its own way, or in float32. Null for a stored form without a compiled one. @param part of it */
function baseStorage(base: Weight, part?: ArrayPart): WeightStorage | null {
  if (isStored(base)) return (part ? base.part?.(part) : base)?.storage?.() ?? null;
  const bytes = async (): Promise<ArrayBufferView> => partOf(await bytesOfTensor(base, 'F32'), base.shape, part);
  return float32Storage(part ? partShape(base.shape, part) : base.shape, bytes);
}

/** A part of float32 values, all of them without one. */
function partOf(values: ArrayBufferView, shape: readonly number[], part?: ArrayPart): ArrayBufferView {
  if (!part) return values;
  return takePart(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), shape, 4, part);
}

/** What belongs to a part of the matrix of a factor, by its axes; undefined for all of it. */
function factorPart(kind: 'linear' | 'embedding', factor: 'A' | 'B', part?: ArrayPart): ArrayPart | undefined {
  if (!part) return undefined;
  // the matrix is B·A, of an embedding its transpose; A has the columns, B the rows
  const cut = (kind === 'linear') === (part.axis === 0) ? 'B' : 'A';
  return cut === factor ? { ...part, axis: factor === 'A' ? 1 : 0 } : undefined;
}

/** The matrix for eager use, which also knows how to be kept in a compiled program: base and factors side by side. */
export function storableLoraMatrix(base: Weight, adapters: MatrixAdapters): StoredMatrix {
  const storage = (part?: ArrayPart): WeightStorage => {
    const below = baseStorage(base, part);
    if (!below) throw noCompiledForm();
    const factors = (['linear', 'embedding'] as const).flatMap((kind) =>
      adapters[kind].flatMap((one, i) =>
        (['A', 'B'] as const).map((factor): [string, VariableSpec] => {
          const [tensor, own] = [one[factor], factorPart(kind, factor, part)];
          const shape = own ? partShape(tensor.shape, own) : tensor.shape;
          const init = (): ArrayBufferView => partOf(tensor.dataSync<'float32'>(), tensor.shape, own);
          return [`.lora_${kind}.${i}.${factor}`, { shape, dtype: 'float32', init }];
        }),
      ),
    );
    return {
      variables: { ...below.variables, ...Object.fromEntries(factors) },
      weight: (vars) => {
        const own = (kind: 'linear' | 'embedding'): LowRank[] =>
          adapters[kind].map((one, i) => ({
            ...one,
            A: vars[`.lora_${kind}.${i}.A`] as tf.Tensor2D,
            B: vars[`.lora_${kind}.${i}.B`] as tf.Tensor2D,
          }));
        return loraMatrix(below.weight(vars), { linear: own('linear'), embedding: own('embedding') });
      },
    };
  };
  const tensors = [...adapters.linear, ...adapters.embedding].flatMap(({ A, B }) => [A, B]);
  return withParts({ ...loraMatrix(base, adapters), tensors }, storage);
}

/** A matrix that programs keep so, whole or in parts. */
function withParts(whole: StoredMatrix, storage: (part?: ArrayPart) => WeightStorage): StoredMatrix {
  return { ...whole, storage: () => storage(), part: (part) => ({ ...whole, storage: () => storage(part) }) };
}

const noCompiledForm = (): ArgumentError =>
  new ArgumentError("This quantised base has no compiled form; use engine: 'eager'", {});

/**
 * An embedding whose lookup and whose product (a tied head) use different matrices.
 * @param rows [v, d], of the lookup @param head [v, d], of the product
 */
export function tiedPair(rows: Weight, head: Weight): StoredMatrix {
  const over = (r: Weight, h: Weight): StoredMatrix => ({
    shape: h.shape,
    apply: (x) => linear(x, h) as tf.Tensor2D,
    rows: (ids) => lookup(ids, r) as tf.Tensor2D,
  });
  const storage = (part?: ArrayPart): WeightStorage => {
    const below = baseStorage(head, part);
    if (!below || isStored(rows)) throw noCompiledForm();
    const init = async (): Promise<ArrayBufferView> => partOf(await bytesOfTensor(rows, 'F32'), rows.shape, part);
    const spec: VariableSpec = { shape: part ? partShape(rows.shape, part) : rows.shape, dtype: 'float32', init };
    return {
      variables: { ...below.variables, '.rows': spec },
      weight: (vars) => over(vars['.rows'] as tf.Tensor2D, below.weight(vars)),
    };
  };
  const tensors = [rows, head].filter((weight) => !isStored(weight)) as tf.Tensor[];
  return withParts({ ...over(rows, head), tensors }, storage);
}
