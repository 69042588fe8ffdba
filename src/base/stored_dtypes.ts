/**
 * Stored dtypes: sizes, and conversion between stored little-endian bytes and float32 or int32 arrays.
 *
 * bfloat16 is the upper half of a float32; float16 is read through a table of its 65536 values. Rounding is to
 * nearest, ties to even, as torch does; it keeps NaN a NaN and overflows to infinity.
 */
import * as os from 'node:os';
import { CheckpointError } from './errors.js';

/** Element types that a checkpoint file may hold, in safetensors' spelling. */
export type StoredDtype = 'F32' | 'F16' | 'BF16' | 'F64' | 'I64' | 'I32' | 'I16' | 'I8' | 'U8' | 'BOOL';

/** Bytes per element. */
export const DTYPE_BYTES: Readonly<Record<StoredDtype, number>> = {
  F64: 8,
  I64: 8,
  F32: 4,
  I32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

/** The dtypes that hold real numbers. */
export type FloatDtype = 'F32' | 'F16' | 'BF16' | 'F64';

/** True when `name` is a stored dtype that we read. */
export function isStoredDtype(name: unknown): name is StoredDtype {
  return typeof name === 'string' && Object.hasOwn(DTYPE_BYTES, name);
}

/** True for F32, F16, BF16 and F64. */
export function isFloatDtype(dtype: StoredDtype): dtype is FloatDtype {
  return dtype === 'F32' || dtype === 'F16' || dtype === 'BF16' || dtype === 'F64';
}

/** config.json's spelling (`"bfloat16"`, `"torch.float16"`) or the short one (`"bf16"`) to the stored dtype; null when unknown. */
export function floatDtypeOf(name: unknown): FloatDtype | null {
  if (typeof name !== 'string') return null;
  switch (name.replace(/^torch\./, '').toLowerCase()) {
    case 'float32':
    case 'fp32':
    case 'f32':
    case 'float':
      return 'F32';
    case 'float16':
    case 'fp16':
    case 'f16':
    case 'half':
      return 'F16';
    case 'bfloat16':
    case 'bf16':
      return 'BF16';
    case 'float64':
    case 'f64':
    case 'double':
      return 'F64';
    default:
      return null;
  }
}

/** The stored dtype in config.json's spelling. */
export function torchDtypeName(dtype: StoredDtype): string {
  return {
    F64: 'float64',
    F32: 'float32',
    F16: 'float16',
    BF16: 'bfloat16',
    I64: 'int64',
    I32: 'int32',
    I16: 'int16',
    I8: 'int8',
    U8: 'uint8',
    BOOL: 'bool',
  }[dtype];
}

/**
 * Number of elements of a shape; null when a dimension is no whole number or the product leaves the safe integers.
 */
export function elementCount(shape: readonly unknown[]): number | null {
  let count = 1;
  let zero = false;
  for (const size of shape) {
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return null;
    if (size === 0) zero = true;
    else count *= size;
    if (!Number.isSafeInteger(count)) return null;
  }
  return zero ? 0 : count;
}

/** Array memory is in machine order, files in little-endian order; the two are one on every machine that TensorFlow.js supports. */
function assertLittleEndian(): void {
  if (os.endianness() !== 'LE')
    throw new CheckpointError('Checkpoints can be read on little-endian machines only; this one is big-endian.');
}

/** A view of `bytes` as another typed array; copies only when the start is not aligned. */
function aligned(bytes: Uint8Array, size: number): Uint8Array {
  return bytes.byteOffset % size === 0 ? bytes : bytes.slice();
}

let halfTable: Float32Array | null = null;

/** The float32 value of every float16 bit pattern. */
function halfValues(): Float32Array {
  if (halfTable) return halfTable;
  const table = new Float32Array(65536);
  const bits = new Uint32Array(table.buffer);
  for (let half = 0; half < 65536; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (exponent === 31) bits[half] = sign | 0x7f800000 | (fraction << 13);
    else if (exponent > 0) bits[half] = sign | ((exponent + 112) << 23) | (fraction << 13);
    else table[half] = (sign ? -1 : 1) * fraction * 2 ** -24;
  }
  halfTable = table;
  return table;
}

/**
 * Stored bytes of a floating dtype to float32. F64 is rounded; all others are exact.
 * @param bytes little endian, contiguous
 * @param out where to write, from its element 0 on (default: a new array)
 * @throws CheckpointError for a dtype that holds no real numbers
 */
export function decodeFloat32(bytes: Uint8Array, dtype: StoredDtype, out?: Float32Array): Float32Array {
  assertLittleEndian();
  const size = DTYPE_BYTES[dtype];
  const count = bytes.byteLength / size;
  if (!Number.isInteger(count))
    throw new CheckpointError(`${bytes.byteLength} bytes are no whole number of ${dtype} elements.`, { dtype });
  const source = aligned(bytes, size);
  const { buffer, byteOffset } = source;
  const result = out ?? new Float32Array(count);
  switch (dtype) {
    case 'F32':
      result.set(new Float32Array(buffer, byteOffset, count));
      return result;
    case 'F64':
      result.set(new Float64Array(buffer, byteOffset, count));
      return result;
    case 'BF16': {
      const half = new Uint16Array(buffer, byteOffset, count);
      const bits = new Uint32Array(result.buffer, result.byteOffset, count);
      for (let i = 0; i < count; i++) bits[i] = half[i]! << 16;
      return result;
    }
    case 'F16': {
      const half = new Uint16Array(buffer, byteOffset, count);
      // integers keep signalling NaNs as they are
      const table = new Uint32Array(halfValues().buffer);
      const bits = new Uint32Array(result.buffer, result.byteOffset, count);
      for (let i = 0; i < count; i++) bits[i] = table[half[i]!]!;
      return result;
    }
    default:
      throw new CheckpointError(`${dtype} holds integers; F32, F16, BF16 or F64 was expected.`, {
        got: dtype,
        expected: ['F32', 'F16', 'BF16', 'F64'],
      });
  }
}

/** float32 bits to the bits of the nearest bfloat16, ties to even. */
export function bfloat16Bits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** The nearest bfloat16 of a number, ties to even, as a float32. */
export function toBfloat16(value: number): number {
  scratch[0] = value;
  scratchBits[0] = bfloat16Bits(scratchBits[0]!) << 16;
  return scratch[0];
}

/** float32 bits to float16 bits, nearest even. */
function toFloat16(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 | ((magnitude >>> 13) & 0x3ff) : 0x7c00);
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    // normal: rebias, then round the 13 dropped bits (a carry into the exponent is right, also up to infinity)
    const rebased = magnitude - 0x38000000;
    return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
  }
  if (magnitude < 0x33000000) return sign;
  const exponent = magnitude >>> 23;
  const fraction = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - exponent;
  const kept = fraction >>> shift;
  const rest = fraction & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (kept + (rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0));
}

/**
 * float32 values to the stored bytes of a floating dtype (nearest, ties to even).
 * @returns little-endian bytes, freshly allocated
 */
export function encodeFloat32(values: Float32Array, dtype: FloatDtype): Uint8Array {
  assertLittleEndian();
  const count = values.length;
  switch (dtype) {
    case 'F32':
      return new Uint8Array(values.slice().buffer);
    case 'F64':
      return new Uint8Array(Float64Array.from(values).buffer);
    default: {
      const bits = new Uint32Array(values.buffer, values.byteOffset, count);
      const out = new Uint16Array(count);
      if (dtype === 'BF16') for (let i = 0; i < count; i++) out[i] = bfloat16Bits(bits[i]!);
      else for (let i = 0; i < count; i++) out[i] = toFloat16(bits[i]!);
      return new Uint8Array(out.buffer);
    }
  }
}

/**
 * Stored bytes of an integer or boolean dtype to int32.
 * @throws CheckpointError when a 64-bit value does not fit, or the dtype is a floating one
 */
export function decodeInt32(bytes: Uint8Array, dtype: StoredDtype): Int32Array {
  assertLittleEndian();
  const size = DTYPE_BYTES[dtype];
  const source = aligned(bytes, size);
  const { buffer, byteOffset } = source;
  const count = bytes.byteLength / size;
  switch (dtype) {
    case 'I32':
      return new Int32Array(buffer, byteOffset, count).slice();
    case 'I16':
      return Int32Array.from(new Int16Array(buffer, byteOffset, count));
    case 'I8':
      return Int32Array.from(new Int8Array(buffer, byteOffset, count));
    case 'U8':
    case 'BOOL':
      return Int32Array.from(source);
    case 'I64': {
      const wide = new BigInt64Array(buffer, byteOffset, count);
      const out = new Int32Array(count);
      for (let i = 0; i < count; i++) {
        const value = Number(wide[i]);
        if (value !== (value | 0))
          throw new CheckpointError(`The 64-bit integer ${wide[i]} (element ${i}) does not fit in 32 bits.`, {
            element: i,
          });
        out[i] = value;
      }
      return out;
    }
    default:
      throw new CheckpointError(`${dtype} holds real numbers; an integer dtype was expected.`, { got: dtype });
  }
}
