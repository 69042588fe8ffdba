/**
 * Blocks: array buffers in memory that TensorFlow can take over as it is, so that weights are in memory once, and that files are read into by
 * several threads. Without a runtime, which provides both, they are ordinary.
 */

/** What threads know how to do, by the types in safetensors' spelling. */
const CONVERSIONS = ['F32 to F32', 'BF16 to F32', 'F32 to BF16'] as const;
export type Conversion = (typeof CONVERSIONS)[number];

/** Bytes that JavaScript does not see, and hands on whole: what is read so is no burden to its garbage collector. */
export interface HeldBytes {
  readonly byteLength: number;
  /** The addon's. */
  readonly held: object;
}

/** Provides blocks. */
export interface BlockSource {
  /** Bytes that are not zeros; null where there are no such blocks. @throws when there is no memory */
  allocate(bytes: number): ArrayBuffer | null;
  /** Fills a buffer with the bytes of an open file from `offset` on. Rejects with code 'EOF' where the file has fewer. */
  readInto<T extends object>(file: number, offset: number, buffer: T): Promise<T>;
  /** Memory for held bytes, of whole words of 4. @throws when there is no memory */
  hold(bytes: number): object;
  /** Fills a buffer with numbers in another type. Null where the numbers do not lie at a multiple of their size. */
  convertInto(numbers: Uint8Array, conversion: Conversion, buffer: ArrayBuffer): Promise<ArrayBuffer> | null;
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

/** As readBlock(), held; null also where the bytes are no whole words of 4. */
export async function readHeld(file: number, offset: number, bytes: number): Promise<HeldBytes | null> {
  if (blocks === null || bytes < LEAST_READ || bytes % 4 !== 0) return null;
  return { byteLength: bytes, held: await blocks.readInto(file, offset, blocks.hold(bytes)) };
}

/** Numbers in another type as a block, made by several threads; null where they do not know how, or nothing is gained by them. */
export async function convertedBlock(
  numbers: Uint8Array,
  conversion: string,
  bytes: number,
): Promise<Uint8Array | null> {
  const known = CONVERSIONS.find((name) => name === conversion);
  if (blocks === null || !known || bytes < LEAST_READ) return null;
  const made = await blocks.convertInto(numbers, known, newBlock(bytes));
  return made && new Uint8Array(made);
}
