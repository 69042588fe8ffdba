/** Lists in which no value comes twice, as rules: one for each set of values that may have come. */

/** Most ways on in all rules together. */
const MOST_WAYS = 8192;

/** Two equal values have one text: names of objects stand in order. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => {
    if (typeof each !== 'object' || each === null || Array.isArray(each)) return each;
    return Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

/**
 * The right side of a rule for lists of so many of some values, in any order.
 * @param values rules of them @param rule writes a rule, and gives its name
 * @returns null where there would be too many sets
 */
export function uniqueList(
  values: readonly string[],
  { min, max }: { min: number; max: number },
  rule: (body: string) => string,
): string | null {
  const most = Math.min(max, values.length);
  if (waysOf(values.length, most) > MOST_WAYS) return null;
  const known = new Map<string, string>();
  /** @param used in order */
  const rest = (used: readonly number[]): string => {
    const key = used.join();
    const found = known.get(key);
    if (found !== undefined) return found;
    const ways = used.length >= min ? ['""'] : [];
    if (used.length < most)
      for (const [at, value] of values.entries())
        if (!used.includes(at)) ways.push(`"," nl ${value} ${rest([...used, at].sort((a, b) => a - b))}`);
    const name = rule(ways.join(' | '));
    known.set(key, name);
    return name;
  };
  const filled = values.map((value, at) => `"[" nl ${value} ${rest([at])} nl "]"`);
  return [...(min === 0 ? ['"[" nl "]"'] : []), ...filled].join(' | ');
}

/** Sets of less than `most` of n values, each with the values that may still come. */
function waysOf(n: number, most: number): number {
  let sets = 1;
  let ways = 0;
  for (let size = 0; size < most && ways <= MOST_WAYS; size++) {
    ways += sets * (n - size);
    sets = (sets * (n - size)) / (size + 1);
  }
  return ways;
}
