/**
 * Which items are run together: those of like length, so that little padding is fed.
 * @param lengths of each item, in tokens
 * @param inOrder keeps the order that the items have
 * @returns positions of the items, batch by batch
 */
export function batchesOf(lengths: readonly number[], size: number, inOrder = false): number[][] {
  const order = [...lengths.keys()];
  if (!inOrder && size > 1) order.sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  return Array.from({ length: Math.ceil(order.length / size) }, (_, k) => order.slice(k * size, (k + 1) * size));
}
