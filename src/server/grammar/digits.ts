/** Whole numbers between two bounds, as a grammar of their digits. */

/** So many digits are exact in a double, whatever they are. */
const MOST_DIGITS = 15;
export const MOST = 10 ** MOST_DIGITS - 1;

/** Alternatives of a grammar for the whole numbers from `low` to `high`, either of which may be open; empty where there are none. */
export function integers(low = -Infinity, high = Infinity): string[] {
  const from = Math.max(Math.ceil(low), -MOST);
  const to = Math.min(Math.floor(high), MOST);
  if (from > to) return [];
  const parts: string[] = [];
  if (from < 0) parts.push(...between(Math.max(1, -to), -from).map((digits) => `"-" ${digits}`));
  if (to >= 0) parts.push(...between(Math.max(0, from), to));
  return parts;
}

/** Of numbers that are not negative. */
function between(low: number, high: number): string[] {
  if (low > high) return [];
  if (low === 0 && high === MOST) return ['"0"', `[1-9] [0-9]{0,${MOST_DIGITS - 1}}`];
  if (low <= 1 && high === MOST) return [`[1-9] [0-9]{0,${MOST_DIGITS - 1}}`];
  const [a, b] = [String(low), String(high)];
  if (a.length < b.length) {
    const most = 10 ** a.length - 1;
    return [...sameLength(a, String(most)), ...between(most + 1, high)];
  }
  return sameLength(a, b);
}

/** Of numbers of equally many digits. */
function sameLength(low: string, high: string): string[] {
  const rest = low.length - 1;
  const [a, b] = [Number(low[0]), Number(high[0])];
  if (rest === 0) return [range(a, b)];
  const all = (from: number, to: number): string[] => (from > to ? [] : [`${range(from, to)} [0-9]{${rest}}`]);
  const [lowTail, highTail] = [low.slice(1), high.slice(1)];
  const wholeLow = /^0+$/.test(lowTail);
  const wholeHigh = /^9+$/.test(highTail);
  if (a === b) return sameLength(lowTail, highTail).map((tail) => `"${a}" ${tail}`);
  return [
    ...(wholeLow ? [] : sameLength(lowTail, '9'.repeat(rest)).map((tail) => `"${a}" ${tail}`)),
    ...all(wholeLow ? a : a + 1, wholeHigh ? b : b - 1),
    ...(wholeHigh ? [] : sameLength('0'.repeat(rest), highTail).map((tail) => `"${b}" ${tail}`)),
  ];
}

const range = (from: number, to: number): string => (from === to ? `"${from}"` : `[${from}-${to}]`);
