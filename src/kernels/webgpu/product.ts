/**
 * A product of a matrix with one vector in WGSL: the norm before it, the bias after it, and the residual that it is added to. A workgroup takes a few
 * rows; the sum of squares of the norm comes out of the same pass over the vector, since the norm's factor can follow the sum.
 */
import { control } from './control.js';
import { chunkOf, hasLevels, matrixBindings, type MatrixFormat, weightFunctions } from './formats.js';
import type { WgslKernel } from './gpu.js';
import { folded, foldedArrays, type NameAt, numbered } from './text.js';

export interface ProductSpec {
  readonly inner: number;
  /** Rows of the matrix that are bound. */
  readonly out: number;
  /** Where y begins for these rows. */
  readonly first: number;
  readonly format: MatrixFormat;
  /** Of x, by groups of channels, with a weight `gamma`. */
  readonly norm: { readonly groups: number; readonly epsilon: number } | null;
  readonly bias: boolean;
  /** Added to y, or in place of it. */
  readonly accumulate: boolean;
  /** Does nothing where the step is switched off (control.ts). */
  readonly guarded: boolean;
}

/** Rows of a workgroup, and threads that share them: a matter of speed only. */
export interface ProductTiling {
  readonly rows: number;
  readonly threads: number;
}

/** As many threads as there are chunks, or a part of them that leaves few idle in the last turn. */
export function productTiling({ inner, format, norm }: ProductSpec): ProductTiling {
  const span = inner / (norm?.groups ?? 1);
  const chunks = span / chunkOf(format, inner, span);
  const idle = (threads: number): number => Math.ceil(chunks / threads) * threads - chunks;
  const threads = [128, 96, 64, 32].reduce((best, each) => (idle(each) < idle(best) ? each : best));
  return { rows: 4, threads };
}

/** Bindings: x [inner], gamma [inner], matrix, levels, bias [first + out], y [first + out], control; those that the spec has. */
export function productKernel(spec: ProductSpec, { rows, threads } = productTiling(spec)): WgslKernel {
  const { inner, out, first, format, norm, bias, accumulate, guarded } = spec;
  const groups = norm?.groups ?? 1;
  const span = inner / groups;
  const chunk = chunkOf(format, inner, span);
  const bindings = [
    ...['x', norm && 'gamma', 'matrix', hasLevels(format) && 'levels', bias && 'bias', 'y', guarded && 'control'],
  ].filter((name): name is string => typeof name === 'string');
  const at: NameAt = numbered(bindings);
  const type = chunk === 8 ? 'vec4<f32>' : 'f32';
  /** Sums of a row, and behind all rows that of the squares. */
  const sums = rows + (norm ? 1 : 0);
  const code = `@group(0) @binding(${at('x')}) var<storage, read> x: array<${type}>;
${norm ? `@group(0) @binding(${at('gamma')}) var<storage, read> gamma: array<${type}>;` : ''}
${matrixBindings(format, chunk, at)}${bias ? `@group(0) @binding(${at('bias')}) var<storage, read> bias: array<f32>;` : ''}
@group(0) @binding(${at('y')}) var<storage, read_write> y: array<f32>;
${guarded ? `@group(0) @binding(${at('control')}) var<storage, read> control: array<u32>;` : ''}
${weightFunctions(format, inner, chunk)}${foldedArrays(sums, threads)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ${rows}u;
  var total = 0.0;
  for (var part = 0u; part < ${groups}u; part++) {
    var sums = array<f32, ${rows}>();
    var squares = 0.0;
    for (var c = part * ${span / chunk}u + lane; c < (part + 1u) * ${span / chunk}u; c += ${threads}u) {
${chunk === 8 ? chunkBody(rows, out, norm !== null) : scalarBody(rows, out, norm !== null)}
    }
    for (var r = 0u; r < ${rows}u; r++) { partial[r * ${threads}u + lane] = sums[r]; }
    ${norm ? `partial[${rows * threads}u + lane] = squares;` : ''}
${folded(sums, threads)}
    if (lane < ${rows}u) {
      ${norm ? `total += sum[lane] * inverseSqrt(sum[${rows}] / ${span}.0 + ${norm.epsilon});` : 'total += sum[lane];'}
    }
    workgroupBarrier();
  }
  let row = first + lane;
  if (lane < ${rows}u && row < ${out}u${guarded ? ` && ${control('moves')} == 1u` : ''}) {
    y[${first}u + row] = ${accumulate ? `y[${first}u + row] + ` : ''}total${bias ? ` + bias[${first}u + row]` : ''};
  }
}
`;
  return { code, bindings, workgroups: Math.ceil(out / rows) };
}

// rows beyond the last are read as the last, and not written
const rowLoop = (rows: number, out: number, body: string): string =>
  `      for (var r = 0u; r < ${rows}u; r++) {
        let row = min(first + r, ${out - 1}u);
        ${body}
      }`;

function chunkBody(rows: number, out: number, normed: boolean): string {
  return `      let a = x[2u * c];
      let b = x[2u * c + 1u];
      var even = vec4<f32>(a.xz, b.xz);
      var odd = vec4<f32>(a.yw, b.yw);
${
  normed
    ? `      squares += dot(a, a) + dot(b, b);
      let ga = gamma[2u * c];
      let gb = gamma[2u * c + 1u];
      even *= vec4<f32>(ga.xz, gb.xz);
      odd *= vec4<f32>(ga.yw, gb.yw);\n`
    : ''
}${rowLoop(rows, out, 'let w = weights(row, c);\n        sums[r] += dot(w.even, even) + dot(w.odd, odd);')}`;
}

function scalarBody(rows: number, out: number, normed: boolean): string {
  return `      ${normed ? 'let own = x[c];\n      squares += own * own;\n      let value = own * gamma[c];' : 'let value = x[c];'}
${rowLoop(rows, out, 'sums[r] += weight(row, c) * value;')}`;
}
