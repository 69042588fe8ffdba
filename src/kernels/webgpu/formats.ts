/** Matrices as WGSL reads them: float32, bfloat16 and int8 and int4 codes, eight channels at a time where the sizes allow, else one. */
import { MOST_WORKGROUPS, OFFSET_UNIT } from './gpu.js';

/**
 * How a matrix [out, inner] lies in a buffer, row by row without gaps. bfloat16: two to a word, the first in the low half. int8: four to a word in two's
 * complement, a scale a row. int4: eight to a word, the first in the low nibble, q of 0 to 15, w = (q - 8)·scale + zero by groups of channels.
 */
export type MatrixFormat =
  { readonly kind: 'float32' | 'bfloat16' | 'int8' } | { readonly kind: 'int4'; readonly groupSize: number };

const BITS = { float32: 32, bfloat16: 16, int8: 8, int4: 4 } as const;

/** Bytes of so many rows of values, and of their levels. */
export function rowBytes(format: MatrixFormat, inner: number, rows = 1): { values: number; levels: number } {
  const values = (rows * inner * BITS[format.kind]) / 8;
  const levels = format.kind === 'int4' ? (8 * inner) / format.groupSize : format.kind === 'int8' ? 4 : 0;
  return { values, levels: rows * levels };
}

/**
 * In which rows a matrix is cut, so that each part can be bound: as [first, rows]. Parts begin at whole multiples of OFFSET_UNIT rows, hence at such bytes.
 * @param most bytes of a binding
 */
export function cutRows(
  format: MatrixFormat,
  out: number,
  inner: number,
  most: number,
): [first: number, rows: number][] {
  const { values, levels } = rowBytes(format, inner);
  const fit = Math.min(Math.floor(most / Math.max(values, levels)), MOST_WORKGROUPS);
  if (fit >= out) return [[0, out]];
  const step = Math.max(1, Math.floor(fit / OFFSET_UNIT)) * OFFSET_UNIT;
  return Array.from({ length: Math.ceil(out / step) }, (_, i) => [i * step, Math.min(step, out - i * step)]);
}

/** Channels that are read at a time. @param span channels that belong together: of a norm's group */
export function chunkOf(format: MatrixFormat, inner: number, span = inner): 1 | 8 {
  const whole = inner % 8 === 0 && span % 8 === 0 && (format.kind !== 'int4' || format.groupSize % 8 === 0);
  return whole ? 8 : 1;
}

const CHUNK_TYPES = { float32: 'vec4<f32>', bfloat16: 'vec4<u32>', int8: 'vec2<u32>', int4: 'u32' } as const;

/** Element type of a matrix's buffer in WGSL. */
function elementType(format: MatrixFormat, chunk: 1 | 8): string {
  if (chunk === 8) return CHUNK_TYPES[format.kind];
  return format.kind === 'float32' ? 'f32' : 'u32';
}

/** Declarations of `matrix` and, where there are, `levels`, at these numbers. */
export function matrixBindings(format: MatrixFormat, chunk: 1 | 8, at: (name: string) => number): string {
  const text = `@group(0) @binding(${at('matrix')}) var<storage, read> matrix: array<${elementType(format, chunk)}>;\n`;
  if (format.kind === 'float32' || format.kind === 'bfloat16') return text;
  const type = format.kind === 'int4' ? 'vec2<f32>' : 'f32';
  return `${text}@group(0) @binding(${at('levels')}) var<storage, read> levels: array<${type}>;\n`;
}

export const hasLevels = ({ kind }: MatrixFormat): boolean => kind === 'int8' || kind === 'int4';

/**
 * WGSL: `struct Chunk { even, odd: vec4<f32> }`, eight weights by the parity of their channels, and `fn weights(row: u32, chunk: u32) -> Chunk`. With chunks
 * of one: `fn weight(row: u32, channel: u32) -> f32`.
 */
export function weightFunctions(format: MatrixFormat, inner: number, chunk: 1 | 8): string {
  return chunk === 8 ? chunkFunction(format, inner) : scalarFunction(format, inner);
}

const STRUCT = `struct Chunk { even: vec4<f32>, odd: vec4<f32> }
`;

function chunkFunction(format: MatrixFormat, inner: number): string {
  const chunks = inner / 8;
  const head = `${STRUCT}fn weights(row: u32, chunk: u32) -> Chunk {
  let at = row * ${chunks}u + chunk;
`;
  switch (format.kind) {
    case 'float32':
      return `${head}  let a = matrix[2u * at];
  let b = matrix[2u * at + 1u];
  return Chunk(vec4<f32>(a.xz, b.xz), vec4<f32>(a.yw, b.yw));
}
`;
    case 'bfloat16':
      // a bfloat16 is the high half of a float32
      return `${head}  let w = matrix[at];
  return Chunk(bitcast<vec4<f32>>(w << vec4<u32>(16u)), bitcast<vec4<f32>>(w & vec4<u32>(0xffff0000u)));
}
`;
    case 'int8':
      return `${head}  let w = bitcast<vec2<i32>>(matrix[at]);
  // to the top of the word and down again, which copies the sign
  let a = vec4<f32>((vec4<i32>(w.x) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
  let b = vec4<f32>((vec4<i32>(w.y) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
  let scale = levels[row];
  return Chunk(vec4<f32>(a.xz, b.xz) * scale, vec4<f32>(a.yw, b.yw) * scale);
}
`;
    case 'int4':
      return `${head}  let w = matrix[at];
  let even = vec4<f32>((vec4<u32>(w) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u)) - 8.0;
  let odd = vec4<f32>((vec4<u32>(w) >> vec4<u32>(4u, 12u, 20u, 28u)) & vec4<u32>(15u)) - 8.0;
  let level = levels[row * ${inner / format.groupSize}u + chunk * 8u / ${format.groupSize}u];
  return Chunk(even * level.x + level.y, odd * level.x + level.y);
}
`;
  }
}

function scalarFunction(format: MatrixFormat, inner: number): string {
  const head = `fn weight(row: u32, channel: u32) -> f32 {
  let at = row * ${inner}u + channel;
`;
  switch (format.kind) {
    case 'float32':
      return `${head}  return matrix[at];
}
`;
    case 'bfloat16':
      return `${head}  let w = matrix[at / 2u];
  return bitcast<f32>(select(w << 16u, w & 0xffff0000u, (at & 1u) == 1u));
}
`;
    case 'int8':
      return `${head}  let w = bitcast<i32>(matrix[at / 4u]);
  return f32((w << (24u - 8u * (at & 3u))) >> 24u) * levels[row];
}
`;
    case 'int4':
      return `${head}  let q = (matrix[at / 8u] >> (4u * (at & 7u))) & 15u;
  let level = levels[row * ${inner / format.groupSize}u + channel / ${format.groupSize}u];
  return (f32(q) - 8.0) * level.x + level.y;
}
`;
  }
}
