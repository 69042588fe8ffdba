/** Numbers and their bits, as the interpreters of PTX and of Triton's language need them one at a time. */
import { bfloat16Bits } from '../../base/stored_dtypes.js';

const scratch = new DataView(new ArrayBuffer(4));

/** Bits of a float32, as a signed integer. */
export const bitsOf = (x: number): number => (scratch.setFloat32(0, x), scratch.getInt32(0));

/** The float32 of these bits. */
export const floatOf = (bits: number): number => (scratch.setInt32(0, bits), scratch.getFloat32(0));

/** Bits of the nearest bfloat16, to even where two are as near. */
export const bf16BitsOf = (x: number): number => bfloat16Bits(bitsOf(x));
