/** Random packed matrices, made and read in plain loops, for tests of the kernels that multiply by them. */
import { lcg } from './random.js';

/** A matrix [out, in] packed as kernels read it (see PackedMatrix), and what it stands for. */
export interface PlainMatrix {
  readonly bits: 4 | 8 | 16;
  readonly out: number;
  readonly inner: number;
  readonly groupSize: number;
  readonly codes: Uint8Array;
  readonly levels: Float32Array;
  /** What the weights are exactly, and the sum of the sizes of the terms that each is made of */
  readonly values: Float64Array;
  readonly sizes: Float64Array;
  /** The same weights with every step in float32 */
  readonly float32: Float32Array;
}

export function randomMatrix(
  bits: 4 | 8 | 16,
  { out, inner, groupSize }: { out: number; inner: number; groupSize: number },
  seed: number,
): PlainMatrix {
  const next = lcg(seed + 17);
  const f = Math.fround;
  const codes = new Uint8Array(Math.ceil((out * inner * bits) / 8));
  const groups = inner / groupSize;
  const levels = new Float32Array(bits === 4 ? 2 * out * groups : bits === 8 ? out : 0).map(() => next() - 0.5);
  const values = new Float64Array(out * inner);
  const sizes = new Float64Array(out * inner);
  const float32 = new Float32Array(out * inner);
  const word = new DataView(codes.buffer);
  for (let i = 0; i < out * inner; i++) {
    const o = Math.floor(i / inner);
    if (bits === 4) {
      const q = Math.floor(next() * 16);
      codes[i >> 1]! |= q << (4 * (i & 1)); // rows have an even number of channels
      const at = 2 * (o * groups + Math.floor((i % inner) / groupSize));
      const [scale, zero] = [levels[at]!, levels[at + 1]!];
      values[i] = (q - 8) * scale + zero;
      // kernels may take the eight from the sum
      sizes[i] = (q + 8) * Math.abs(scale) + Math.abs(zero);
      float32[i] = f(f((q - 8) * scale) + zero);
    } else if (bits === 8) {
      const q = Math.floor(next() * 256) - 128;
      word.setInt8(i, q);
      float32[i] = f(q * levels[o]!);
      values[i] = q * levels[o]!;
      sizes[i] = Math.abs(values[i]!);
    } else {
      const value = Float32Array.of(next() * 2 - 1);
      const high = new Uint32Array(value.buffer)[0]! >>> 16;
      word.setUint16(2 * i, high, true);
      float32[i] = new Float32Array(Uint32Array.of(high << 16).buffer)[0]!;
      values[i] = float32[i]!;
      sizes[i] = Math.abs(values[i]!);
    }
  }
  return { bits, out, inner, groupSize, codes, levels, values, sizes, float32 };
}
