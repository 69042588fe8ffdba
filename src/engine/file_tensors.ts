/**
 * Weights of a checkpoint as tensors that hold no memory: on the tensorflow backend their values stay in the file until an op wants them. So
 * training an adapter, which compiles a program over the weights, never has a float32 copy of them on the host.
 */
import * as tf from '@tensorflow/tfjs';
import { someAtATime } from '../base/some_at_a_time.js';
import { convertedBlock, type HeldBytes, newBlock } from '../base/blocks.js';
import { DTYPE_BYTES, decodeFloat32, encodeFloat32, type StoredDtype } from '../base/stored_dtypes.js';
import type { CheckpointSource } from '../checkpoints/source.js';
import { isHeld, lateTensor, nativeId } from '../runtime/binding.js';

/** Where a tensor's values are. */
interface Place {
  readonly source: CheckpointSource;
  readonly name: string;
}

/** By the tensors' data, which a tensor that is assigned to exchanges for other. */
const places = new WeakMap<object, Place>();

/** The stored type of a program's variable. */
export type ProgramFloat = 'F32' | 'BF16';

/** A weight as a float32 tensor. */
export function fileTensor(source: CheckpointSource, name: string, shape: readonly number[]): tf.Tensor {
  const { dtype } = source.tensors.get(name)!;
  const read = (): Float32Array => decodeFloat32(source.readBytesSync(name), dtype);
  if (tf.getBackend() !== 'tensorflow') return tf.tensor(read(), [...shape]);
  const made = lateTensor(shape, read);
  places.set(made.dataId, { source, name });
  return made;
}

/** A weight's bytes in a type, straight from the file where that has it. */
export async function bytesOfFile(
  source: CheckpointSource,
  name: string,
  dtype: ProgramFloat,
): Promise<ArrayBufferView> {
  const bytes = await source.readBytes(name);
  const stored = source.tensors.get(name)!.dtype;
  if (stored === dtype) return bytes;
  return inType(bytes, stored, dtype);
}

/** As bytesOfFile(), for a variable of a program, which may take them held. */
export async function variableOfFile(
  source: CheckpointSource,
  name: string,
  dtype: ProgramFloat,
): Promise<ArrayBufferView | HeldBytes> {
  const held = source.tensors.get(name)!.dtype === dtype ? await source.readHeld?.(name) : null;
  return held ?? bytesOfFile(source, name, dtype);
}

/** Stored bytes in a program's type, as a block, which a program takes without another copy. The event loop runs meanwhile. */
export async function inType(bytes: Uint8Array, stored: StoredDtype, dtype: ProgramFloat): Promise<Uint8Array> {
  const [from, to] = [DTYPE_BYTES[stored], DTYPE_BYTES[dtype]];
  const count = bytes.byteLength / from;
  const converted = await convertedBlock(bytes, `${stored} to ${dtype}`, count * to);
  if (converted) return converted;
  const block = newBlock(count * to);
  await someAtATime(count, (begin, end) => {
    const part = bytes.subarray(begin * from, end * from);
    if (dtype === 'F32') decodeFloat32(part, stored, new Float32Array(block, begin * to, end - begin));
    else new Uint8Array(block).set(encodeFloat32(decodeFloat32(part, stored), dtype), begin * to);
  });
  return new Uint8Array(block);
}

/** Whether a tensor's values are in its file alone. */
export function isInFile(tensor: tf.Tensor): boolean {
  return places.has(tensor.dataId) && !isHeld(tensor.dataId);
}

/** A tensor's values in a type: from its file as long as they are nowhere else. */
export async function bytesOfTensor(tensor: tf.Tensor, dtype: ProgramFloat): Promise<ArrayBufferView> {
  const place = isInFile(tensor) ? places.get(tensor.dataId) : undefined;
  if (place) return bytesOfFile(place.source, place.name, dtype);
  const { buffer, byteOffset, byteLength } = (await tensor.data()) as Float32Array;
  return inType(new Uint8Array(buffer, byteOffset, byteLength), 'F32', dtype);
}

/** Before a file is closed: reads what tensors still stand for it. @param data of tensors made from it */
export function readBeforeClosing(data: Iterable<object>): void {
  const shared = [...data].filter((id) => !isHeld(id));
  for (const dataId of shared) nativeId({ dataId } as tf.Tensor);
}
