/** The rows of an embedding that the chosen tokens name, in WGSL, for a part of the matrix: of another part's row nothing is written. */
import { control } from './control.js';
import { chunkOf, hasLevels, matrixBindings, type MatrixFormat, weightFunctions } from './formats.js';
import type { WgslKernel } from './gpu.js';
import { numbered } from './text.js';

export interface EmbeddingSpec {
  readonly inner: number;
  readonly format: MatrixFormat;
  /** Rows first to first + out of the matrix are bound. */
  readonly first: number;
  readonly out: number;
  /** Rows of x, each with a token of its own. */
  readonly batch: number;
}

const THREADS = 64;

/** Bindings: matrix, levels, x [batch, inner], control. */
export function embeddingKernel({ inner, format, first, out, batch }: EmbeddingSpec): WgslKernel {
  const chunk = chunkOf(format, inner);
  const bindings = ['matrix', ...(hasLevels(format) ? ['levels'] : []), 'x', 'control'];
  const at = numbered(bindings);
  const code = `${matrixBindings(format, chunk, at)}@group(0) @binding(${at('x')}) var<storage, read_write> x: array<${chunk === 8 ? 'vec4<f32>' : 'f32'}>;
@group(0) @binding(${at('control')}) var<storage, read> control: array<u32>;
${weightFunctions(format, inner, chunk)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let row = ${control('token', 'id.y')} - ${first}u; // below the first it wraps to what is beyond the last
  if (c >= ${inner / chunk}u || row >= ${out}u) { return; }
${
  chunk === 8
    ? `  let w = weights(row, c);
  let at = 2u * (id.y * ${inner / chunk}u + c);
  x[at] = vec4<f32>(w.even.x, w.odd.x, w.even.y, w.odd.y);
  x[at + 1u] = vec4<f32>(w.even.z, w.odd.z, w.even.w, w.odd.w);`
    : `  x[id.y * ${inner}u + c] = weight(row, c);`
}
}
`;
  return { code, bindings, workgroups: Math.ceil(inner / chunk / THREADS), times: batch };
}
