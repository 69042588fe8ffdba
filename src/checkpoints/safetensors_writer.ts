/**
 * Writing safetensors as the Python library does: tensors by falling alignment, then name; the header padded with
 * spaces so that the data begins at a multiple of 8.
 */
import { SaveError } from '../base/errors.js';
import { DTYPE_BYTES, elementCount } from '../base/stored_dtypes.js';
import { AtomicFile, writeTogether } from '../base/whole_files.js';
import type { OutTensor, StoredDtype } from './source.js';
import { SAFETENSORS_TABLE } from './save_options.js';

/** What save functions tell about their progress: bytes of tensor data, and the tensor just written. */
export interface SaveProgress {
  readonly written: number;
  readonly total: number;
  readonly tensor: string;
}

/** A tensor's place in the file to come. */
export interface PlannedTensor {
  readonly tensor: OutTensor;
  readonly bytes: number;
}

/** @throws SaveError when the shape is not one */
export function plan(tensor: OutTensor): PlannedTensor {
  const count = elementCount(tensor.shape);
  if (count === null)
    throw new SaveError(`Tensor ${tensor.name} has shape [${tensor.shape.join(', ')}], which is not one.`, {
      tensor: tensor.name,
    });
  return { tensor, bytes: count * DTYPE_BYTES[tensor.dtype] };
}

/** The dtypes in the order of the format's own library. */
const ORDER: readonly StoredDtype[] = ['BOOL', 'U8', 'I8', 'I16', 'F16', 'BF16', 'I32', 'F32', 'F64', 'I64'];

/** The order of the Python library: later dtypes first, so that every tensor is aligned to its element; then by name. */
export function storageOrder(planned: readonly PlannedTensor[]): PlannedTensor[] {
  return [...planned].sort(
    ({ tensor: a }, { tensor: b }) =>
      ORDER.indexOf(b.dtype) - ORDER.indexOf(a.dtype) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
}

/** The header with its length in front, for tensors in the order of their bytes. */
function safetensorsHeader(planned: readonly PlannedTensor[], metadata?: Record<string, string>): Uint8Array {
  const entries: [string, unknown][] = metadata ? [['__metadata__', metadata]] : [];
  let at = 0;
  for (const { tensor, bytes } of planned) {
    entries.push([tensor.name, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [at, at + bytes] }]);
    at += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const length = Math.ceil(json.byteLength / 8) * 8;
  const out = new Uint8Array(8 + length).fill(32);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(json, 8);
  return out;
}

/** Writes one tensor's bytes, whole or in slices, and checks that there are as many as its shape says. */
async function writeTensor(out: AtomicFile, { tensor, bytes }: PlannedTensor, signal?: AbortSignal): Promise<void> {
  const before = out.written;
  if (tensor.slices) {
    for await (const slice of tensor.slices()) {
      signal?.throwIfAborted();
      await out.write(slice);
    }
  } else await out.write(await tensor.data());
  if (out.written - before !== bytes)
    throw new SaveError(
      `Tensor ${tensor.name} gave ${out.written - before} bytes; its shape [${tensor.shape.join(', ')}] of ${tensor.dtype} takes ${bytes}.`,
      { tensor: tensor.name, file: out.path },
    );
}

/**
 * Writes one safetensors file, left aside until its commit() is called; on failure it is removed.
 * @param planned in the order of their bytes
 */
export async function writeSafetensorsAside(
  file: string,
  planned: readonly PlannedTensor[],
  options: {
    metadata?: Record<string, string>;
    signal?: AbortSignal;
    onTensor?: (planned: PlannedTensor) => void;
  } = {},
): Promise<AtomicFile> {
  const names = new Set(planned.map(({ tensor }) => tensor.name));
  if (names.size !== planned.length) throw new SaveError(`Two tensors of ${file} have the same name.`, { file });
  const out = await AtomicFile.create(file);
  try {
    await out.write(safetensorsHeader(planned, options.metadata));
    for (const part of planned) {
      options.signal?.throwIfAborted();
      await writeTensor(out, part, options.signal);
      options.onTensor?.(part);
    }
    await out.finish();
    return out;
  } catch (error) {
    await out.abort();
    throw error;
  }
}

/** Options of writeSafetensors. */
export interface WriteSafetensorsOptions {
  /** `__metadata__` of the file */
  metadata?: Record<string, string>;
  /** ends writing by throwing its reason */
  signal?: AbortSignal;
}

/**
 * Writes a safetensors file: aside, then renamed.
 * @example await writeSafetensors('x.safetensors', [{ name: 'a', dtype: 'F32', shape: [1], data: () => bytes }])
 * @throws SaveError; nothing half written is left
 */
export async function writeSafetensors(
  file: string,
  tensors: Iterable<OutTensor>,
  options: WriteSafetensorsOptions = {},
): Promise<void> {
  SAFETENSORS_TABLE.check(options);
  const planned = storageOrder([...tensors].map(plan));
  await writeTogether(async (aside) => void aside.push(await writeSafetensorsAside(file, planned, options)));
}
