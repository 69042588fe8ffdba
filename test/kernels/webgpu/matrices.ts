/** Random matrices in the formats of the WGSL kernels, and what they stand for. */
import type { MatrixFormat } from '../../../src/kernels/webgpu/formats.js';
import { randomMatrix } from '../../support/packed_matrices.js';
import type { Draw } from '../host/cases.js';

interface Matrix {
  format: MatrixFormat;
  values: Float32Array | Uint8Array;
  levels: Float32Array;
  /** What it stands for, and how large the terms are that each weight is made of, [out·inner]. */
  weights: Float64Array;
  sizes: Float64Array;
}

export function matrixOf(draw: Draw, format: MatrixFormat, out: number, inner: number): Matrix {
  if (format.kind === 'float32') {
    const values = draw.numbers(out * inner);
    return { format, values, levels: new Float32Array(1), weights: Float64Array.from(values), sizes: Float64Array.from(values, Math.abs) }; // prettier-ignore
  }
  const bits = { bfloat16: 16, int8: 8, int4: 4 } as const;
  const groupSize = format.kind === 'int4' ? format.groupSize : inner;
  const plain = randomMatrix(bits[format.kind], { out, inner, groupSize }, draw.whole(0, 1e6));
  return { format, values: plain.codes, levels: plain.levels, weights: plain.values, sizes: plain.sizes };
}
