/**
 * What the rest of the package sees of a checkpoint: names, shapes and stored dtypes first, bytes one tensor at a time.
 */
import type { HeldBytes } from '../base/blocks.js';
import type { StoredDtype } from '../base/stored_dtypes.js';

export type { StoredDtype };

/** One tensor, described before it is read. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  /** stored size: elements × bytes per element */
  readonly bytes: number;
  /** path of the file that holds it */
  readonly file: string;
}

/** A checkpoint whose tensor names and layouts are those of Hugging Face's, whatever the container was. */
export interface CheckpointSource {
  readonly format: 'hf' | 'state-spaces' | 'mistral';
  readonly dir: string;
  /** Parsed config.json in Hugging Face's keys (unknown keys kept; Infinity in both spellings read as number Infinity) */
  readonly config: Record<string, unknown>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** the tensor's stored bytes, little endian, contiguous, freshly allocated (aligned to 8) */
  readBytes(name: string): Promise<Uint8Array>;
  /** The same bytes held by the runtime, for a program's variable; null where it does not hold such. */
  readHeld?(name: string): Promise<HeldBytes | null>;
  readBytesSync(name: string): Uint8Array;
  /** Has a tensor ready for one readBytesSync(); needed in a browser, where files have to be waited for. */
  hold?(name: string): Promise<void>;
  /** decoded to float32 */
  readFloat32(name: string): Promise<Float32Array>;
  /** the tensor's stored bytes in order, in pieces of whole elements and at most `maxBytes` (default 16 MiB) */
  readSlices(name: string, maxBytes?: number): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/** A tensor to be written: described now, its bytes asked for when its turn comes. */
export interface OutTensor {
  name: string;
  dtype: StoredDtype;
  shape: readonly number[];
  /** the bytes, little endian and contiguous */
  data(): Uint8Array | Promise<Uint8Array>;
  /** the same bytes in pieces; asked for instead of data() where present, so that no tensor is held whole */
  slices?(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}
