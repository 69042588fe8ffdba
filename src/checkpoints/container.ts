/**
 * The tensors of one or several files under one roof, by the names that the files use. Built by the readers of each
 * format; `open.ts` puts Hugging Face's names on top.
 */
import type { HeldBytes } from '../base/blocks.js';
import { CheckpointError } from '../base/errors.js';
import type { StoredDtype } from './source.js';
import { plain } from '../base/quote.js';

/** One tensor of a container and the ways to read it. */
export interface ContainerTensor {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly file: string;
  read(): Promise<Uint8Array>;
  /** The same bytes held by the runtime; null where it does not hold such. */
  readHeld?(): Promise<HeldBytes | null>;
  readSync(): Uint8Array;
  /** Has the bytes ready for one readSync(), where there is something to wait for. */
  hold?(): Promise<void>;
  slices(maxBytes: number): AsyncIterable<Uint8Array>;
}

/** An open set of files. */
export interface Container {
  readonly tensors: ReadonlyMap<string, ContainerTensor>;
  close(): Promise<void>;
}

/** Joins containers; a name in two of them is an error. */
export function joinContainers(parts: readonly Container[]): Container {
  const tensors = new Map<string, ContainerTensor>();
  for (const part of parts)
    for (const [name, tensor] of part.tensors) {
      const other = tensors.get(name);
      if (other)
        throw new CheckpointError(`Tensor ${plain(name)} is in two files: ${other.file} and ${tensor.file}.`, {
          tensor: name,
          file: tensor.file,
        });
      tensors.set(name, tensor);
    }
  return {
    tensors,
    close: async () => {
      await Promise.all(parts.map((part) => part.close()));
    },
  };
}
