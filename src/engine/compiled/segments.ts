/** In which pieces a prompt is read: programs exist for a few lengths, and the last piece is masked. */

/** What a call costs besides its tokens, in tokens. */
const CALL = 16;

/** The cheapest cover of `left` tokens: its cost, and its first segment. */
function cheapest(left: number, segments: readonly number[]): { cost: number; first: number } {
  const covering = segments.find((t) => t >= left);
  const filled = segments.filter((t) => t < left).pop();
  const whole = covering === undefined ? null : { cost: covering + CALL, first: covering };
  if (filled === undefined) return whole!;
  if (whole === null) return { cost: Infinity, first: filled }; // longer than any segment: what follows does not matter
  const rest = filled + CALL + cheapest(left - filled, segments).cost;
  return rest < whole.cost ? { cost: rest, first: filled } : whole;
}

/**
 * The segment to run next: a masked one costs as much as a full one, so that a rest is read in smaller segments where those take
 * fewer tokens in all, a call counted as 16.
 * @param left tokens to read, at least 1
 * @param segments lengths there are programs for, ascending
 */
export function segmentFor(left: number, segments: readonly number[]): number {
  return cheapest(left, segments).first;
}
