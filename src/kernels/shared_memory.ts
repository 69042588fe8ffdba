/** Shared memory of a block of threads: a kernel names its arrays once, for whoever writes it and for whoever asks whether it fits. */
import { SHARED_BYTES } from '../jit/custom_call/ptx.js';

/** Bytes of each array; 0 of one that there is not. */
export type SharedArrays<Name extends string> = Readonly<Record<Name, number>>;

/** Bytes of all of them: each begins at a multiple of 16, as PtxWriter.array puts it. */
export function sharedBytes(arrays: SharedArrays<string>): number {
  return Object.values(arrays).reduce((sum, bytes) => sum + 16 * Math.ceil(bytes / 16), 0);
}

export function fitsShared(arrays: SharedArrays<string>): boolean {
  return sharedBytes(arrays) <= SHARED_BYTES;
}
