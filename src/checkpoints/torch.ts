/**
 * PyTorch's pytorch_model.bin (torch.save since 1.6): a zip with a pickle that describes tensors as strided views of
 * storages, and one entry per storage.
 */
import { CheckpointError } from '../base/errors.js';
import type { Container, ContainerTensor } from './container.js';
import { DTYPE_BYTES, elementCount } from '../base/stored_dtypes.js';
import { RandomAccessFile, type ByteSource } from '../base/files.js';
import { PickleTensor, unpickle, type PickleValue } from './pickle.js';
import type { StoredDtype } from './source.js';
import { crc32, readZipDirectory, type ZipEntry } from './zip.js';
import { plain, quote } from '../base/quote.js';

const DTYPES: Readonly<Record<string, StoredDtype>> = {
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  FloatStorage: 'F32',
  DoubleStorage: 'F64',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
};
/** A state dict's pickle takes some hundred bytes per tensor. */
const MAX_PICKLE = 25_000_000;
const SLICE = 16 * 2 ** 20;

/** Keys under which training tools put a state dict beside other things. */
const WRAPPERS = ['state_dict', 'model_state_dict', 'model'];

/** The tensors of a pickled state dict, or of the one that a training checkpoint wraps. */
function stateDict(value: PickleValue, file: string, depth = 0): Map<string, PickleTensor> {
  if (!(value instanceof Map)) throw new CheckpointError(`${file} holds no dict of tensors.`, { file });
  for (const key of WRAPPERS) {
    const inner = value.get(key);
    // a dict can hold itself
    if (inner instanceof Map && depth < 3) return stateDict(inner, file, depth + 1);
  }
  const tensors = new Map<string, PickleTensor>();
  for (const [name, tensor] of value)
    if (tensor instanceof PickleTensor) {
      if (typeof name !== 'string')
        throw new CheckpointError(`${file} holds a tensor whose name is no text.`, { file });
      tensors.set(name, tensor);
    }
  if (tensors.size === 0) throw new CheckpointError(`${file} holds no tensors in its dict.`, { file });
  return tensors;
}

/** Are the elements one after another in the order of the shape? */
function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d] !== 1 && strides[d] !== expected) return false;
    expected *= shape[d]!;
  }
  return true;
}

/** Copies a strided view to contiguous bytes; `bytes` begins at the view's first element. */
function gather(bytes: Uint8Array, shape: readonly number[], strides: readonly number[], size: number): Uint8Array {
  const count = elementCount(shape)!;
  const out = new Uint8Array(count * size);
  const wide = size === 8 ? 2 : 1;
  const Words = size === 1 ? Uint8Array : size === 2 ? Uint16Array : Uint32Array;
  const from = new Words(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength / (size / wide));
  const to = new Words(out.buffer, 0, count * wide);
  const last = shape.length - 1;
  const index = new Array<number>(shape.length).fill(0);
  let base = 0;
  for (let at = 0; at < count; at += shape[last]!) {
    for (let i = 0; i < shape[last]!; i++)
      for (let w = 0; w < wide; w++) to[(at + i) * wide + w] = from[(base + i * strides[last]!) * wide + w]!;
    for (let d = last - 1; d >= 0; d--) {
      base += strides[d]!;
      if (++index[d]! < shape[d]!) break;
      base -= shape[d]! * strides[d]!;
      index[d] = 0;
    }
  }
  return out;
}

/** Checks a view against its storage and makes it readable. */
function viewOf(
  file: ByteSource,
  name: string,
  tensor: PickleTensor,
  entry: ZipEntry | undefined,
  verify: (entry: ZipEntry) => void,
): ContainerTensor {
  const { storage, offset, shape, strides } = tensor;
  const fail = (what: string): CheckpointError =>
    new CheckpointError(`${file.path}: tensor ${plain(name)}: ${what}`, { file: file.path, tensor: name });
  const dtype = DTYPES[storage.type.slice('torch.'.length)];
  if (!dtype) throw fail(`storages of type ${plain(storage.type)} are not supported.`);
  if (!entry) throw fail(`its storage ${plain(storage.key)} is not in the file. Fetch the file again.`);
  const size = DTYPE_BYTES[dtype];
  if (entry.end - entry.begin !== storage.elements * size)
    throw fail(
      `its storage ${plain(storage.key)} has ${entry.end - entry.begin} bytes; ${storage.elements} elements of ${dtype} take ${storage.elements * size}.`,
    );
  const count = elementCount(shape);
  if (count === null) throw fail(`shape [${shape.join(', ')}] is too large.`);
  const span = count === 0 ? 0 : shape.reduce((sum, length, d) => sum + (length - 1) * strides[d]!, 1);
  if (!(offset + span <= storage.elements))
    throw fail(
      `shape [${shape.join(', ')}] with strides [${strides.join(', ')}] from element ${offset} leaves its storage of ${storage.elements} elements.`,
    );
  if (count > storage.elements)
    throw fail(
      `shape [${shape.join(', ')}] repeats elements of its storage of ${storage.elements}; save it contiguous.`,
    );
  const begin = entry.begin + offset * size;
  const contiguous = isContiguous(shape, strides);
  const whole = async (): Promise<Uint8Array> => {
    verify(entry);
    const bytes = await file.read(begin, span * size);
    return contiguous || count === 0 ? bytes : gather(bytes, shape, strides, size);
  };
  return {
    dtype,
    shape,
    bytes: count * size,
    file: file.path,
    read: whole,
    readSync: () => {
      verify(entry);
      const bytes = file.readSync(begin, span * size);
      return contiguous || count === 0 ? bytes : gather(bytes, shape, strides, size);
    },
    async *slices(maxBytes) {
      if (!contiguous) {
        const bytes = await whole();
        for (let at = 0; at < bytes.byteLength; at += maxBytes) yield bytes.subarray(at, at + maxBytes);
        return;
      }
      verify(entry);
      const end = begin + span * size;
      for (let at = begin; at < end; at += maxBytes) yield file.read(at, Math.min(maxBytes, end - at));
    },
  };
}

/** Compares entries with their checksums, each once and before its first tensor is read. */
function verifier(file: ByteSource): (entry: ZipEntry) => void {
  const good = new Set<ZipEntry>();
  return (entry) => {
    if (entry.crc === null || good.has(entry)) return;
    let crc = 0;
    for (let at = entry.begin; at < entry.end; at += SLICE)
      crc = crc32(file.readSync(at, Math.min(SLICE, entry.end - at)), crc);
    if (crc !== entry.crc)
      throw new CheckpointError(
        `${file.path}: entry ${plain(entry.name)} does not match its checksum. Fetch the file again.`,
        {
          file: file.path,
          entry: entry.name,
        },
      );
    good.add(entry);
  };
}

/**
 * A torch file as a container. Only its directory and pickle are read; the bytes are closed with it, and on failure.
 * @throws CheckpointError when the file is damaged, or its pickle is more than a state dict
 */
export async function torchContainer(file: ByteSource): Promise<Container> {
  try {
    const start = await file.read(0, Math.min(4, file.size));
    if (!(start[0] === 0x50 && start[1] === 0x4b)) {
      const legacy = start[0] === 0x80;
      throw new CheckpointError(
        legacy
          ? `${file.path} is in torch's format of before 1.6, which is a bare pickle. Load and save it once with a current torch.`
          : `${file.path} is no file of torch.save: it does not begin as a zip archive does.`,
        { file: file.path },
      );
    }
    const entries = await readZipDirectory(file);
    const pickles = [...entries.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
    const [pickle] = pickles;
    if (!pickle || pickles.length > 1)
      throw new CheckpointError(`${file.path} is no file of torch.save: it has ${pickles.length} entries data.pkl.`, {
        file: file.path,
      });
    const prefix = pickle.name.slice(0, -'data.pkl'.length);
    if (pickle.end - pickle.begin > MAX_PICKLE)
      throw new CheckpointError(`${file.path}: a pickle of ${pickle.end - pickle.begin} bytes is no state dict.`, {
        file: file.path,
        limit: MAX_PICKLE,
      });
    const verify = verifier(file);
    verify(pickle);
    const order = entries.get(`${prefix}byteorder`);
    if (order) {
      const text = new TextDecoder().decode(await file.read(order.begin, Math.min(16, order.end - order.begin)));
      if (text !== 'little')
        throw new CheckpointError(`${file.path}: its byte order is ${quote(text)}; "little" was expected.`, {
          file: file.path,
          got: text,
        });
    }
    const value = unpickle(await file.read(pickle.begin, pickle.end - pickle.begin), file.path);
    const tensors = new Map<string, ContainerTensor>();
    for (const [name, tensor] of stateDict(value, file.path))
      tensors.set(name, viewOf(file, name, tensor, entries.get(`${prefix}data/${tensor.storage.key}`), verify));
    return { tensors, close: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Opens a pytorch_model.bin. */
export async function openTorchContainer(path: string): Promise<Container> {
  return torchContainer(await RandomAccessFile.open(path));
}
