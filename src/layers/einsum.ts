/**
 * `einsum` for two operands, lowered to reshape, transpose and one batched matMul. tfjs' own Einsum multiplies with
 * broadcasting and then sums on the cpu, webgl and webgpu backends (an SSD chunk would take gigabytes), is missing on
 * wasm, and has no gradient anywhere. Every op used here has one on every backend, so gradients need no code.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';

/** A product of matrices, or of batches of them: tf.matMul, or one in another type. */
export type MatMul = (a: tf.Tensor, b: tf.Tensor, transposeA: boolean, transposeB: boolean) => tf.Tensor;

/** How one equation is lowered. Axes are numbers into the operand; all lists are in output order. */
interface Plan {
  inputs: [string, string];
  output: string;
  /** Labels present in one operand only and not in the output: summed before anything else. */
  summed: [number[], number[]];
  batch: string[];
  freeA: string[];
  freeB: string[];
  contracted: string[];
  permA: number[] | null;
  permB: number[] | null;
  transposeA: boolean;
  transposeB: boolean;
  permOut: number[] | null;
}

const plans = new Map<string, Plan>();

function isIdentity(perm: readonly number[]): boolean {
  return perm.every((p, i) => p === i);
}

/**
 * Chooses the axis order of an operand: matMul takes [batch, rows, columns] or, with its transpose flag,
 * [batch, columns, rows]; whichever needs no transpose of the data wins, then that which leaves the last axis where it is.
 */
function operandOrder(
  labels: string[],
  batch: string[],
  rows: string[],
  cols: string[],
): { perm: number[] | null; flip: boolean } {
  const at = (order: string[]): number[] => order.map((l) => labels.indexOf(l));
  const straight = at([...batch, ...rows, ...cols]);
  if (isIdentity(straight)) return { perm: null, flip: false };
  const flipped = at([...batch, ...cols, ...rows]);
  if (isIdentity(flipped)) return { perm: null, flip: true };
  const last = labels.length - 1;
  if (straight[last] !== last && flipped[last] === last) return { perm: flipped, flip: true };
  return { perm: straight, flip: false };
}

function makePlan(equation: string): Plan {
  const match = /^([a-z]+),([a-z]+)->([a-z]*)$/.exec(equation.replace(/\s/g, ''));
  if (!match) {
    throw new ArgumentError(`einsum: got '${equation}', expected two operands and an output such as 'bij,bjk->bik'`, {
      equation,
    });
  }
  const [a, b, out] = [match[1]!, match[2]!, match[3]!];
  for (const part of [a, b, out]) {
    if (new Set(part).size !== part.length) {
      throw new ArgumentError(`einsum: '${equation}' repeats a label within '${part}'; diagonals are not supported`, {
        equation,
      });
    }
  }
  const missing = [...out].find((l) => !a.includes(l) && !b.includes(l));
  if (missing)
    throw new ArgumentError(`einsum: output label '${missing}' of '${equation}' is in no operand`, { equation });

  const keptA = [...a].filter((l) => b.includes(l) || out.includes(l));
  const keptB = [...b].filter((l) => a.includes(l) || out.includes(l));
  const batch = [...out].filter((l) => a.includes(l) && b.includes(l));
  const freeA = [...out].filter((l) => a.includes(l) && !b.includes(l));
  const freeB = [...out].filter((l) => b.includes(l) && !a.includes(l));
  const contracted = keptA.filter((l) => keptB.includes(l) && !out.includes(l));
  const orderA = operandOrder(keptA, batch, freeA, contracted);
  const orderB = operandOrder(keptB, batch, contracted, freeB);
  const produced = [...batch, ...freeA, ...freeB];
  const permOut = [...out].map((l) => produced.indexOf(l));
  return {
    inputs: [a, b],
    output: out,
    summed: [
      [...a].flatMap((l, i) => (keptA.includes(l) ? [] : [i])),
      [...b].flatMap((l, i) => (keptB.includes(l) ? [] : [i])),
    ],
    batch,
    freeA,
    freeB,
    contracted,
    permA: orderA.perm,
    permB: orderB.perm,
    transposeA: orderA.flip,
    transposeB: orderB.flip,
    permOut: isIdentity(permOut) ? null : permOut,
  };
}

function bindSizes(equation: string, plan: Plan, operands: [tf.Tensor, tf.Tensor]): Map<string, number> {
  const sizes = new Map<string, number>();
  operands.forEach((operand, k) => {
    const labels = plan.inputs[k]!;
    if (operand.rank !== labels.length) {
      throw new ArgumentError(
        `einsum '${equation}': operand ${k} has shape [${operand.shape}], expected rank ${labels.length} ('${labels}')`,
        { equation, operand: k, shape: operand.shape },
      );
    }
    [...labels].forEach((l, i) => {
      const size = operand.shape[i]!;
      const known = sizes.get(l);
      if (known !== undefined && known !== size) {
        throw new ArgumentError(
          `einsum '${equation}': label '${l}' is ${known} in operand 0 and ${size} in operand 1`,
          {
            equation,
            label: l,
          },
        );
      }
      sizes.set(l, size);
    });
  });
  return sizes;
}

/**
 * Contracts two tensors by an Einstein equation with one letter per axis.
 *
 * Labels in both operands and in the output are batch axes, labels in both and not in the output are contracted, labels
 * in one only are free or, if the output lacks them, summed. No repeated label within an operand, no '...'.
 *
 * @param equation for example `'bqn,bsn->bqs'`
 * @param multiply what multiplies; tf.matMul when absent
 * @returns float32 tensor with the axes of the output, in its order
 * @throws ArgumentError when the equation is malformed, or ranks or sizes do not fit it
 * @example
 * const scores = einsum('bqn,bsn->bqs', C, B); // [b, q, s]
 */
export function einsum(equation: string, a: tf.Tensor, b: tf.Tensor, multiply: MatMul = tf.matMul): tf.Tensor {
  let plan = plans.get(equation);
  if (!plan) {
    plan = makePlan(equation);
    plans.set(equation, plan);
  }
  const p = plan;
  const sizes = bindSizes(equation, p, [a, b]);
  const dims = (labels: readonly string[]): number[] => labels.map((l) => sizes.get(l)!);
  const total = (labels: readonly string[]): number => dims(labels).reduce((x, y) => x * y, 1);
  return tf.tidy(() => {
    const left = p.summed[0].length ? tf.sum(a, p.summed[0]) : a;
    const right = p.summed[1].length ? tf.sum(b, p.summed[1]) : b;
    const [n, m, k, j] = [total(p.batch), total(p.freeA), total(p.contracted), total(p.freeB)];
    const rowsA = p.permA ? tf.transpose(left, p.permA) : left;
    const rowsB = p.permB ? tf.transpose(right, p.permB) : right;
    const batched = p.batch.length > 0 ? [n] : [];
    let out: tf.Tensor;
    if (p.contracted.length === 0) {
      // nothing to sum: a broadcast product is cheaper than a matMul over one element
      out = tf.mul(tf.reshape(rowsA, [n, m, 1]), tf.reshape(rowsB, [n, 1, j]));
    } else {
      const flatA = tf.reshape(rowsA, [...batched, ...(p.transposeA ? [k, m] : [m, k])]);
      const flatB = tf.reshape(rowsB, [...batched, ...(p.transposeB ? [j, k] : [k, j])]);
      out = multiply(flatA, flatB, p.transposeA, p.transposeB); // [n, m, j]
    }
    out = tf.reshape(out, dims([...p.batch, ...p.freeA, ...p.freeB]));
    return p.permOut ? tf.transpose(out, p.permOut) : out;
  });
}
