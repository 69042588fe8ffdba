/** Matrices on the device, in parts that can be bound. */
import { cutRows, type MatrixFormat, rowBytes } from './formats.js';
import type { GpuBinding } from './gpu.js';

/** Rows first to first + out of a matrix. */
export interface MatrixPart {
  readonly first: number;
  readonly out: number;
  readonly values: GpuBinding;
  /** int8: [out]; int4: scale and zero [out, groups, 2] */
  readonly levels?: GpuBinding;
}

/** A matrix on the device, in parts that can be bound. */
export interface GpuMatrix {
  readonly format: MatrixFormat;
  readonly out: number;
  readonly inner: number;
  readonly parts: readonly MatrixPart[];
}

/** A matrix whose parts are bound in the buffers that hold it whole. */
export function boundMatrix(
  format: MatrixFormat,
  [out, inner]: readonly [number, number],
  most: number,
  { values, levels }: { values: GpuBinding['buffer']; levels?: GpuBinding['buffer'] },
): GpuMatrix {
  const parts = cutRows(format, out, inner, most).map(([first, rows]): MatrixPart => {
    const [before, own] = [rowBytes(format, inner, first), rowBytes(format, inner, rows)];
    const part = (buffer: GpuBinding['buffer'], offset: number, size: number): GpuBinding => ({
      ...{ buffer, offset, size: Math.max(4, Math.ceil(size / 4) * 4) },
    });
    return {
      ...{ first, out: rows, values: part(values, before.values, own.values) },
      ...(levels && { levels: part(levels, before.levels, own.levels) }),
    };
  });
  return { format, out, inner, parts };
}
