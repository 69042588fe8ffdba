/** Whole multiples of a number between two bounds, as rules over their digits. */
import { MOST } from './digits.js';

/** Most rules: one for each remainder and count of digits that are left. */
const MOST_RULES = 4096;

interface Tail {
  /** What the digits that are left must not be below, or above; null where they may be anything. */
  low: string | null;
  high: string | null;
}

/**
 * Alternatives of a grammar for the multiples from `low` to `high`, either of which may be open; empty where there are none.
 * @param rule writes a rule, and gives its name
 * @returns null where they would be too many rules
 */
export function multiples(of: number, low: number, high: number, rule: (body: string) => string): string[] | null {
  const digits = new Digits(of, rule);
  const [from, to] = [Math.max(Math.ceil(low), -MOST), Math.min(Math.floor(high), MOST)];
  const parts: string[] = [];
  if (from < 0) parts.push(...digits.between(Math.max(1, -to), -from).map((each) => `"-" ${each}`));
  if (to >= 0) parts.push(...digits.between(Math.max(0, from), to));
  return digits.tooMany ? null : parts;
}

class Digits {
  tooMany = false;
  private count = 0;
  /** Names of rules; null for those that no digits fit. */
  private readonly known = new Map<string, string | null>();

  constructor(
    private readonly of: number,
    private readonly rule: (body: string) => string,
  ) {}

  /** Of numbers that are not negative: one rule for each count of digits. */
  between(low: number, high: number): string[] {
    const parts: string[] = [];
    for (let length = String(low).length; low <= high && length <= String(high).length; length++) {
      const from = String(Math.max(low, length === 1 ? 0 : 10 ** (length - 1)));
      const to = String(Math.min(high, 10 ** length - 1));
      const part = this.rest(length, 0, { low: from, high: to });
      if (part !== null) parts.push(part);
    }
    return parts;
  }

  /**
   * Rule of the digits that are left.
   * @param sum what the digits before them are worth at their places, modulo the number
   */
  private rest(left: number, sum: number, tail: Tail): string | null {
    const key = `${left},${sum},${tail.low ?? ''},${tail.high ?? ''}`;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    if (this.tooMany || this.count >= MOST_RULES) {
      this.tooMany = true;
      return null;
    }
    this.count++;
    const ways = new Map<string, number[]>();
    for (let digit = Number(tail.low?.[0] ?? 0); digit <= Number(tail.high?.[0] ?? 9); digit++) {
      const next = (sum + digit * 10 ** (left - 1)) % this.of;
      const then = left > 1 ? this.rest(left - 1, next, tailAfter(tail, digit)) : next === 0 ? '' : null;
      if (then !== null) ways.set(then, [...(ways.get(then) ?? []), digit]);
    }
    const body = [...ways].map(([then, list]) => `[${list.join('')}] ${then}`).join(' | ');
    const name = body === '' ? null : this.rule(body);
    this.known.set(key, name);
    return name;
  }
}

function tailAfter({ low, high }: Tail, digit: number): Tail {
  const after = (text: string | null, free: RegExp): string | null => {
    if (text === null || Number(text[0]) !== digit || free.test(text.slice(1))) return null;
    return text.slice(1);
  };
  return { low: after(low, /^0+$/), high: after(high, /^9+$/) };
}
