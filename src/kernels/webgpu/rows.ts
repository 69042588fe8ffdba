/** Rows of a matrix by number in WGSL, as float32: what an embedding lookup and the product of a prompt take of packed weights. */
import { chunkOf, hasLevels, matrixBindings, type MatrixFormat, weightFunctions } from './formats.js';
import type { WgslKernel } from './gpu.js';
import { numbered } from './text.js';

export interface RowsSpec {
  readonly inner: number;
  readonly format: MatrixFormat;
  /** Rows first to first + out of the matrix are bound; of others nothing is written. */
  readonly first: number;
  readonly out: number;
  /** How many rows are asked for. */
  readonly count: number;
}

const THREADS = 64;

/** Bindings: matrix, levels, ids [count], y [count, inner]. */
export function rowsKernel({ inner, format, first, out, count }: RowsSpec): WgslKernel {
  const chunk = chunkOf(format, inner);
  const bindings = ['matrix', ...(hasLevels(format) ? ['levels'] : []), 'ids', 'y'];
  const at = numbered(bindings);
  const chunks = inner / chunk;
  const code = `${matrixBindings(format, chunk, at)}@group(0) @binding(${at('ids')}) var<storage, read> ids: array<u32>;
@group(0) @binding(${at('y')}) var<storage, read_write> y: array<${chunk === 8 ? 'vec4<f32>' : 'f32'}>;
${weightFunctions(format, inner, chunk)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let number = id.x / ${chunks}u;
  let c = id.x % ${chunks}u;
  if (number >= arrayLength(&ids)) { return; }
  let row = ids[number] - ${first}u; // below the first it wraps to what is beyond the last
  if (row >= ${out}u) { return; }
${
  chunk === 8
    ? `  let w = weights(row, c);
  y[2u * id.x] = vec4<f32>(w.even.x, w.odd.x, w.even.y, w.odd.y);
  y[2u * id.x + 1u] = vec4<f32>(w.even.z, w.odd.z, w.even.w, w.odd.w);`
    : '  y[id.x] = weight(row, c);'
}
}
`;
  return { code, bindings, workgroups: Math.ceil((count * chunks) / THREADS) };
}
