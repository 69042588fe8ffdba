/**
 * Decoding on a GPU is a product of every matrix with one vector, with small work around it, and each kernel costs about as much as
 * it takes to start it. Here a matrix, the norm and gate before it and the residual after it are one kernel of our own: every program
 * works the norm out anew and multiplies a few rows. Matrices of bfloat16 and of codes have kernels in PTX (row_ptx.ts) where their sizes
 * allow it; all others are Triton kernels, written here, in which vectors stay float32 and are not rounded.
 */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import { type EpilogueInputs, epilogueSpecOf, epilogueValues } from '../epilogue/spec.js';
import { rowsOf } from './triton_formats.js';
import { oneRowPtxFits, oneRowPtxKernel } from './ptx.js';
import { type WeightFormat, type OneRowSpec, oneRowTritonFits, oneRowTritonTiling } from './spec.js';
import { OneRowTriton } from './triton_writer.js';
import { type TritonKernel, type TtirValue, runTriton, tritonRuns } from '../../jit/custom_call/triton.js';

export {
  oneRowTritonFits,
  oneRowTritonTiling,
  type WeightFormat,
  type OneRowSpec,
  type OneRowTritonTiling,
} from './spec.js';

function build(w: OneRowTriton): TritonKernel {
  const { k, spec, tiling } = w;
  const { residual, out, epilogue } = spec;
  const tiles = Math.ceil(out / tiling.rows);
  const turns = Math.min(tiles, tiling.turns);
  const programs = Math.ceil(tiles / turns);
  const program = k.program();
  const range = k.range(tiling.rows);
  /** Rows of a turn, and which of them there are. */
  const rowsAt = (turn: TtirValue | number): { rows: TtirValue; mask?: TtirValue } => {
    const tile = w.offset(program, typeof turn === 'number' ? turn * programs : k.binary('arith.muli', turn, programs));
    const rows = w.offset(range, k.binary('arith.muli', tile, tiling.rows));
    return { rows, mask: turns * programs * tiling.rows === out ? undefined : k.compare('arith.cmpi slt', rows, out) };
  };
  const finish = (product: TtirValue, rows: TtirValue, mask?: TtirValue): void => {
    const y = residual ? w.add(product, k.load(w.pointer('residual'), rows, mask)) : product;
    k.store(w.pointer('y'), rows, epilogue ? w.gateOf(rows, y, epilogue) : y, mask);
    if (epilogue) w.activate(rows, y, mask, epilogue);
  };
  const stored = rowsOf(w);
  if (tiling.ahead) {
    let next = { ...rowsAt(0), loaded: stored.load(rowsAt(0)) };
    const multiply = stored.prepare();
    for (let turn = 0; turn < turns; turn++) {
      const { rows, mask, loaded } = next;
      if (turn + 1 < turns) {
        const at = rowsAt(turn + 1);
        next = { ...at, loaded: stored.load(at) };
      }
      finish(multiply(loaded), rows, mask);
    }
  } else {
    const multiply = stored.prepare();
    k.repeat(turns, 1, (turn) => {
      const at = rowsAt(turns === 1 ? 0 : turn);
      finish(multiply(stored.load(at)), at.rows, at.mask);
    });
  }
  return k.kernel({ grid: programs, warps: tiling.warps });
}

/** The kernel of a product, over the inputs of parametersOf and the result. */
export function oneRowTritonKernel(spec: OneRowSpec, tiling = oneRowTritonTiling(spec)): TritonKernel {
  if (!oneRowTritonFits(spec, tiling))
    throw new ArgumentError('oneRowTritonKernel: no kernel for these sizes', { spec });
  return build(new OneRowTriton(spec, tiling));
}

/** What a product is applied to; all float32 but `place`. */
export interface OneRowInputs {
  /** [1, in] */
  x: tf.Tensor;
  /** D, [heads], and where in `gate` the vector begins that it is multiplied by. Kernels of CPUs alone. */
  skip?: { d: tf.Tensor; offset: number };
  /** Before SiLU, [1, in or more]: of more, the first in. Kernels of CPUs alone. */
  gate?: tf.Tensor;
  /** Weight of the norm, [in], how many groups have a norm each, and the number added to the mean square */
  norm?: { gamma: tf.Tensor; groups: number; epsilon: number };
  /** [1, out] */
  residual?: tf.Tensor;
  /** Of one row. A_log [heads], given for kernels of GPUs: the gate is stored as SiLU, and decays follow the step sizes (see the spec's). */
  epilogue?: Omit<EpilogueInputs, 'mask'>;
}

/**
 * residual + W·(norm(x)·gamma), and what follows an input projection, in one kernel. Traced code for a GPU alone, without a gradient.
 * @param shape of the matrix, [out, in]
 * @param matrix variables of the format: weights, or codes, scale and least
 * @returns [1, out], with epilogue [1, out + channels + 2·heads]; null where the kernel cannot be written, or runs on no GPU
 */
export function oneRowProduct(
  shape: readonly number[],
  format: WeightFormat,
  inputs: OneRowInputs,
  matrix: readonly tf.Tensor[],
): tf.Tensor2D | null {
  const { x, skip, norm, gate, residual, epilogue: after } = inputs;
  const [out, inner] = shape as [number, number];
  const spec: OneRowSpec = {
    out,
    inner,
    format,
    norm: norm && { groups: norm.groups, epsilon: norm.epsilon },
    residual: residual !== undefined,
    ...(after && { epilogue: epilogueSpecOf(after) }),
  };
  const ptx = oneRowPtxFits(spec);
  if (skip || gate || (after && !after.ALog)) return null; // forms of the CPU
  if (!tritonRuns() || x.size !== inner || !(ptx || oneRowTritonFits(spec))) return null;
  const given = [x, norm?.gamma, ...matrix, residual, ...(after ? epilogueValues(after) : [])];
  const extra = after ? after.channels + 2 * after.heads : 0;
  return runTriton(
    ptx ? oneRowPtxKernel(spec) : oneRowTritonKernel(spec),
    given.filter((t) => t !== undefined),
    [1, out + extra],
  ) as tf.Tensor2D;
}
