/** The body of an answer in blocks of one size, as it arrives. */

/**
 * @param size of a block; the last one is what is left
 * @param progress is told how much has arrived
 */
export async function* blocksOf(
  { body }: Response,
  size: number,
  progress: (loaded: number) => void,
): AsyncGenerator<Uint8Array> {
  const reader = body?.getReader();
  let block = new Uint8Array(size);
  let [held, loaded] = [0, 0];
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;
    for (let at = 0; at < value.length;) {
      const part = value.subarray(at, at + size - held);
      block.set(part, held);
      held += part.length;
      at += part.length;
      if (held < size) continue;
      yield block;
      [block, held] = [new Uint8Array(size), 0];
    }
    loaded += value.length;
    progress(loaded);
  }
  if (held > 0) yield block.slice(0, held);
}
