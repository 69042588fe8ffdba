/**
 * Byte-pair merges of one word, for the tokenizer in JavaScript: its own take time that grows with the square of a run of spaces, since
 * scores change while they lie in its queue.
 */

/** Numbers, the least first. */
class Heap {
  private readonly items: number[] = [];

  get size(): number {
    return this.items.length;
  }

  push(item: number): void {
    const { items } = this;
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (items[parent]! <= item) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  pop(): number {
    const { items } = this;
    const least = items[0]!;
    const item = items.pop()!;
    if (items.length === 0) return least;
    let at = 0;
    for (let child = 1; child < items.length; child = 2 * at + 1) {
      if (child + 1 < items.length && items[child + 1]! < items[child]!) child++;
      if (items[child]! >= item) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = item;
    return least;
  }
}

/**
 * Joins neighbours until none can be joined: those of the lowest rank first, of equals the first from the left.
 * @param symbols the characters of a word
 * @param rankOf the rank of a merge; undefined where two symbols cannot be joined
 */
export function mergeSymbols(
  symbols: readonly string[],
  rankOf: (left: string, right: string) => number | undefined,
): string[] {
  const count = symbols.length;
  const text: (string | null)[] = [...symbols];
  const next = Int32Array.from({ length: count }, (_, i) => (i + 1 < count ? i + 1 : -1));
  const previous = Int32Array.from({ length: count }, (_, i) => i - 1);
  /** rank of the merge of a symbol with the next; those in the queue that are of another rank are out of date */
  const ranks = new Float64Array(count).fill(-1);
  const queue = new Heap();
  const look = (at: number): void => {
    const rank = at >= 0 && next[at]! >= 0 ? rankOf(text[at]!, text[next[at]!]!) : undefined;
    if (at >= 0) ranks[at] = rank ?? -1;
    if (rank !== undefined) queue.push(rank * count + at);
  };
  for (let at = 0; at < count; at++) look(at);
  while (queue.size > 0) {
    const item = queue.pop();
    const at = item % count;
    if (text[at] === null || ranks[at] !== (item - at) / count) continue;
    const right = next[at]!;
    text[at] += text[right]!;
    text[right] = null;
    next[at] = next[right]!;
    if (next[at] >= 0) previous[next[at]] = at;
    look(at);
    look(previous[at]!);
  }
  return text.filter((each) => each !== null);
}
