/**
 * A product of a matrix with the rows of a batch in WGSL: the norm before it, the bias after it, and the residual that it is added to. A workgroup takes a
 * few rows of the matrix and up to eight of the batch, which share what is read of the former; the sum of squares of the norm comes out of the same pass
 * over x, since the norm's factor can follow the sum.
 */
import { control } from './control.js';
import { chunkOf, hasLevels, matrixBindings, type MatrixFormat, weightFunctions } from './formats.js';
import type { WgslKernel } from './gpu.js';
import { folded, foldedArrays, foldedBytes, type NameAt, numbered } from './text.js';

export interface ProductSpec {
  readonly inner: number;
  /** Rows of the matrix that are bound. */
  readonly out: number;
  /** Where y begins for these rows. */
  readonly first: number;
  /** Rows of x and of y, and how long those of y are. */
  readonly batch: number;
  readonly width: number;
  readonly format: MatrixFormat;
  /** Of x, by groups of channels, with a weight `gamma`. */
  readonly norm: { readonly groups: number; readonly epsilon: number } | null;
  readonly bias: boolean;
  /** Added to y, or in place of it. */
  readonly accumulate: boolean;
  /** Does nothing where the step is switched off (control.ts). */
  readonly guarded: boolean;
}

/** Rows of the matrix and of the batch of a workgroup, and threads that share them: a matter of speed only. */
export interface ProductTiling {
  readonly rows: number;
  readonly texts: number;
  /** At least rows·texts. */
  readonly threads: number;
}

/** The most rows of a batch that share a workgroup. */
const MOST_TEXTS = 8;

/** Bytes of workgroup memory that every device has. */
const WORKGROUP_BYTES = 16384;

/** As many threads as there are chunks, or a part of them that leaves few idle in the last turn; and no more than there is memory for. */
export function productTiling({ inner, format, norm, batch }: ProductSpec): ProductTiling {
  const span = inner / (norm?.groups ?? 1);
  const chunks = span / chunkOf(format, inner, span);
  const idle = (threads: number): number => Math.ceil(chunks / threads) * threads - chunks;
  const [rows, texts] = [4, Math.ceil(batch / Math.ceil(batch / MOST_TEXTS))];
  const fit = [128, 96, 64, 32].filter((each) => foldedBytes(sumsOf(rows, texts, norm), each) <= WORKGROUP_BYTES);
  const threads = fit.reduce((best, each) => (idle(each) < idle(best) ? each : best));
  return { rows, texts, threads };
}

/** Sums of a workgroup: of each row with each text, and behind them the squares of each text. */
const sumsOf = (rows: number, texts: number, norm: unknown): number => (rows + (norm ? 1 : 0)) * texts;

/** Bindings: x [batch, inner], gamma [inner], matrix, levels, bias [first + out], y [batch, width], control; those that the spec has. */
export function productKernel(spec: ProductSpec, { rows, texts, threads } = productTiling(spec)): WgslKernel {
  const { inner, out, first, batch, width, format, norm, bias, accumulate, guarded } = spec;
  const groups = norm?.groups ?? 1;
  const span = inner / groups;
  const chunk = chunkOf(format, inner, span);
  const bindings = [
    ...['x', norm && 'gamma', 'matrix', hasLevels(format) && 'levels', bias && 'bias', 'y', guarded && 'control'],
  ].filter((name): name is string => typeof name === 'string');
  const at: NameAt = numbered(bindings);
  const type = chunk === 8 ? 'vec4<f32>' : 'f32';
  const [own, sums] = [rows * texts, sumsOf(rows, texts, norm)];
  const body = { rows, texts, batch, out, row: chunk === 8 ? inner / 4 : inner, normed: norm !== null };
  const code = `@group(0) @binding(${at('x')}) var<storage, read> x: array<${type}>;
${norm ? `@group(0) @binding(${at('gamma')}) var<storage, read> gamma: array<${type}>;` : ''}
${matrixBindings(format, chunk, at)}${bias ? `@group(0) @binding(${at('bias')}) var<storage, read> bias: array<f32>;` : ''}
@group(0) @binding(${at('y')}) var<storage, read_write> y: array<f32>;
${guarded ? `@group(0) @binding(${at('control')}) var<storage, read> control: array<u32>;` : ''}
${weightFunctions(format, inner, chunk)}${foldedArrays(sums, threads)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ${rows}u;
  let text = group.y * ${texts}u;
  var total = 0.0;
  for (var part = 0u; part < ${groups}u; part++) {
    var sums = array<f32, ${own}>();
    var squares = array<f32, ${texts}>();
    for (var c = part * ${span / chunk}u + lane; c < (part + 1u) * ${span / chunk}u; c += ${threads}u) {
${chunk === 8 ? chunkBody(body) : scalarBody(body)}
    }
    for (var i = 0u; i < ${own}u; i++) { partial[i * ${threads}u + lane] = sums[i]; }
    ${norm ? `for (var i = 0u; i < ${texts}u; i++) { partial[(${own}u + i) * ${threads}u + lane] = squares[i]; }` : ''}
${folded(sums, threads)}
    if (lane < ${own}u) {
      ${norm ? `total += sum[lane] * inverseSqrt(sum[${own}u + lane % ${texts}u] / ${span}.0 + ${norm.epsilon});` : 'total += sum[lane];'}
    }
    workgroupBarrier();
  }
  let row = first + lane / ${texts}u;
  let b = text + lane % ${texts}u;
  if (lane < ${own}u && row < ${out}u && b < ${batch}u${guarded ? ` && ${control('moves', 'b')} == 1u` : ''}) {
    let at = b * ${width}u + ${first}u + row;
    y[at] = ${accumulate ? 'y[at] + ' : ''}total${bias ? ` + bias[${first}u + row]` : ''};
  }
}
`;
  return { code, bindings, workgroups: Math.ceil(out / rows), times: Math.ceil(batch / texts) };
}

interface Body {
  readonly rows: number;
  readonly texts: number;
  readonly batch: number;
  readonly out: number;
  /** Elements of x in a row. */
  readonly row: number;
  readonly normed: boolean;
}

// rows beyond the last are read as the last, and not written
const rowLoop = ({ rows, texts, out }: Body, weight: string, product: (text: number) => string): string =>
  `      for (var r = 0u; r < ${rows}u; r++) {
        let row = min(first + r, ${out - 1}u);
        let w = ${weight};
${eachText(texts, (i) => `        sums[${texts}u * r + ${i}u] += ${product(i)};`)}
      }`;

const eachText = (texts: number, line: (text: number) => string): string =>
  Array.from({ length: texts }, (_, i) => line(i)).join('\n');

/** Where x of a text begins: the one after the last is read as the last. */
const begin = ({ texts, batch, row }: Body, text: number): string =>
  batch === 1
    ? ''
    : `${batch % texts === 0 ? `(text + ${text}u)` : `min(text + ${text}u, ${batch - 1}u)`} * ${row}u + `;

function chunkBody(body: Body): string {
  const { texts, normed } = body;
  return `${normed ? '      let ga = gamma[2u * c];\n      let gb = gamma[2u * c + 1u];\n' : ''}${eachText(
    texts,
    (i) => `      let a${i} = x[${begin(body, i)}2u * c];
      let b${i} = x[${begin(body, i)}2u * c + 1u];
      var even${i} = vec4<f32>(a${i}.xz, b${i}.xz);
      var odd${i} = vec4<f32>(a${i}.yw, b${i}.yw);
${
  normed
    ? `      squares[${i}] += dot(a${i}, a${i}) + dot(b${i}, b${i});
      even${i} *= vec4<f32>(ga.xz, gb.xz);
      odd${i} *= vec4<f32>(ga.yw, gb.yw);`
    : ''
}`,
  )}
${rowLoop(body, 'weights(row, c)', (i) => `dot(w.even, even${i}) + dot(w.odd, odd${i})`)}`;
}

function scalarBody(body: Body): string {
  const { texts, normed } = body;
  return `${eachText(texts, (i) => {
    const read = `x[${begin(body, i)}c]`;
    if (!normed) return `      let value${i} = ${read};`;
    return `      let own${i} = ${read};\n      squares[${i}] += own${i} * own${i};\n      let value${i} = own${i} * gamma[c];`;
  })}
${rowLoop(body, 'weight(row, c)', (i) => `w * value${i}`)}`;
}
