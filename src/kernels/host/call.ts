/** int4 products on CPUs by kernels of our own, called from programs that XLA compiles. Traced code for a CPU alone. */
import type * as tf from '@tensorflow/tfjs';
import { TracingError } from '../../jit/index.js';
import { hasHostKernel, runHostKernel } from '../../jit/custom_call/host_call.js';
import type { OneRowInputs } from '../one_row/call.js';
import { type CallOf, type CallSpec, INT4_PRODUCT, INT4_ROW, operandNames, packNumbers } from './spec.js';

/** Instructions that the kernels are written in. */
export type Instructions = 'vnni' | 'avx2';

/** The fastest first. */
const ALL: readonly Instructions[] = ['vnni', 'avx2'];

/** The forms of the kernels that run here, the fastest first; none on GPUs and on processors without AVX2. */
export function int4Instructions(): Instructions[] {
  return ALL.filter((form) => hasHostKernel(`int4_product_${form}`));
}

/** A matrix [out, in] in tiles, over traced variables. */
export interface TiledMatrix {
  out: number;
  inner: number;
  groupSize: number;
  /** Scales and zeros are bfloat16, else float32. */
  bf16Levels: boolean;
  /** See INT4_ROW.operands. */
  codes: tf.Tensor;
  scale: tf.Tensor;
  zero: tf.Tensor;
}

function call<S extends CallSpec>(
  name: string,
  spec: S,
  numbers: CallOf<S>,
  given: Partial<Record<string, tf.Tensor>>,
  shape: readonly number[],
): tf.Tensor2D {
  const operands = operandNames(spec, numbers).map((operand) => {
    const value = given[operand];
    if (!value) throw new TracingError(`internal: ${name} was called without ${operand}`, { name, operand });
    return value;
  });
  return runHostKernel(name, packNumbers(spec, numbers), operands, shape) as tf.Tensor2D;
}

/** x [m, in] -> x·Wᵀ [m, out], with x rounded to int8 in the matrix' groups */
export function int4Product(instructions: Instructions, matrix: TiledMatrix, x: tf.Tensor2D): tf.Tensor2D {
  const { out, inner, groupSize: group, bf16Levels, codes, scale, zero } = matrix;
  const rows = x.shape[0];
  const numbers = { rows, inner, group, out, bf16Levels };
  return call(`int4_product_${instructions}`, INT4_PRODUCT, numbers, { x, codes, scale, zero }, [rows, out]);
}

/** The product of one row with what is around it (StoredMatrix.fused). Null for anything but one row, and for norms that do not fit. */
export function int4Row(
  instructions: Instructions,
  matrix: TiledMatrix,
  { x, gate, skip, norm, residual, epilogue }: OneRowInputs,
): tf.Tensor2D | null {
  const { out, inner, groupSize: group, bf16Levels, codes, scale, zero } = matrix;
  if (x.size !== inner || inner % (norm?.groups ?? 1) !== 0) return null;
  const numbers = {
    ...{ inner, group, out, bf16Levels },
    hasGate: gate !== undefined,
    hasSkip: skip !== undefined,
    hasNorm: norm !== undefined,
    hasResidual: residual !== undefined,
    hasEpilogue: epilogue !== undefined,
    hasBias: epilogue?.bias !== undefined,
    skipHeads: skip?.d.size ?? 0,
    skipOffset: skip?.offset ?? 0,
    normGroups: norm?.groups ?? 0,
    epsilon: norm?.epsilon ?? 0,
    first: epilogue?.first ?? 0,
    channels: epilogue?.channels ?? 0,
    taps: epilogue?.taps ?? 0,
    low: epilogue?.limit[0] ?? 0,
    high: epilogue?.limit[1] ?? 0,
    place: epilogue?.place ?? 0,
  };
  const given = {
    ...{ x, gate, d: skip?.d, gamma: norm?.gamma, codes, scale, zero, residual },
    ...{ context: epilogue?.context, taps: epilogue?.weights },
    ...{ bias: epilogue?.bias, dtBias: epilogue?.dtBias },
  };
  const behind = epilogue ? epilogue.channels + epilogue.heads : 0;
  return call(`int4_row_${instructions}`, INT4_ROW, numbers, given, [1, out + behind]);
}
