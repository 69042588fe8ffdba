/**
 * Blocks: array buffers in memory that TensorFlow can take over as it is, so that weights are in memory once, and that files are read into by
 * several threads. Without a runtime, which provides both, they are ordinary.
 */

/** Provides blocks. */
export interface BlockSource {
  /** Bytes that are not zeros; null where there are no such blocks. @throws when there is no memory */
  allocate(bytes: number): ArrayBuffer | null;
  /** Fills a buffer with the bytes of an open file from `offset` on. Rejects with code 'EOF' where the file has fewer. */
  readInto(file: number, offset: number, buffer: ArrayBuffer): Promise<ArrayBuffer>;
}

let blocks: BlockSource | null = null;

/** From now on blocks come from there. */
export function useBlocks(source: BlockSource): void {
  blocks = source;
}

/** A block of so many bytes, which may hold anything; an ordinary buffer of zeros where there are none. */
export function newBlock(bytes: number): ArrayBuffer {
  return blocks?.allocate(bytes) ?? new ArrayBuffer(bytes);
}

/** Below it threads gain nothing. */
const LEAST_READ = 2 ** 16;

/** Bytes of a file as a block, read by several threads; null where nothing is gained by them. */
export async function readBlock(file: number, offset: number, bytes: number): Promise<Uint8Array | null> {
  if (blocks === null || bytes < LEAST_READ) return null;
  return new Uint8Array(await blocks.readInto(file, offset, newBlock(bytes)));
}
