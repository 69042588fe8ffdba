/** Kinds of values that options take: a test, and the words for it that messages and the documentation use. */

/** What an option takes. */
export interface Kind {
  /** Completes "expected …": 'an integer of 1 or more'. */
  readonly expected: string;
  readonly ok: (value: unknown) => boolean;
}

/** Bounds of a number. */
export interface Bounds {
  min?: number;
  max?: number;
  above?: number;
  below?: number;
}

const bounded = (value: number, { min, max, above, below }: Bounds): boolean =>
  value >= (min ?? -Infinity) &&
  value <= (max ?? Infinity) &&
  (above === undefined || value > above) &&
  (below === undefined || value < below);

/** ' of 1 or more', ' from 0 to 1', ' above 0 and at most 1'; empty without bounds. */
function boundsInWords({ min, max, above, below }: Bounds): string {
  if (min !== undefined && max !== undefined) return ` from ${min} to ${max}`;
  if (min !== undefined && below === undefined) return ` of ${min} or more`;
  const lower = min !== undefined ? `of ${min} or more` : above !== undefined ? `above ${above}` : '';
  const upper = max !== undefined ? `at most ${max}` : below !== undefined ? `below ${below}` : '';
  const both = [lower, upper].filter((word) => word !== '').join(' and ');
  return both === '' ? '' : ` ${both}`;
}

/** true or false. */
export const boolean: Kind = { expected: 'true or false', ok: (v) => typeof v === 'boolean' };

/** A text that is not empty. */
export const text: Kind = { expected: 'a text', ok: (v) => typeof v === 'string' && v !== '' };

/** A text, which may be empty. */
export const anyText: Kind = { expected: 'a text', ok: (v) => typeof v === 'string' };

/** A function. */
export const func: Kind = { expected: 'a function', ok: (v) => typeof v === 'function' };

/** Whatever there is: judged elsewhere, with more than its type to go by. */
export const anything: Kind = { expected: 'a value', ok: () => true };

/** An AbortSignal. */
export const abortSignal: Kind = {
  expected: 'an AbortSignal',
  // by its methods: a signal of another realm, as test runners have, is none of this one's class
  ok: (v) => isObject(v) && typeof v.aborted === 'boolean' && typeof v.addEventListener === 'function',
};

/** A record: an object that is no list, whose fields are judged elsewhere. */
export const object: Kind = { expected: 'an object', ok: (v) => isObject(v) && !Array.isArray(v) };

/** A whole number that a double holds exactly. */
export function integer(bounds: Bounds = {}): Kind {
  return {
    expected: `an integer${boundsInWords(bounds)}`,
    ok: (v) => Number.isSafeInteger(v) && bounded(v as number, bounds),
  };
}

/** A finite number. */
export function number(bounds: Bounds = {}, hint = ''): Kind {
  return {
    expected: `a number${boundsInWords(bounds)}${hint}`,
    ok: (v) => typeof v === 'number' && Number.isFinite(v) && bounded(v, bounds),
  };
}

/** One of a few values. */
export function oneOf(...values: readonly (string | number | boolean)[]): Kind {
  const names = values.map((value) => (typeof value === 'string' ? `'${value}'` : String(value)));
  const last = names.pop()!;
  return {
    expected: names.length ? `${names.join(', ')} or ${last}` : last,
    ok: (v) => (values as readonly unknown[]).includes(v),
  };
}

/** A list. @param least fewest elements, 0 or 1 @param words what its elements are, in the plural; default from `item` */
export function listOf(item: Kind, words?: string, least: 0 | 1 = 0): Kind {
  return {
    expected: `a list of ${least ? 'at least one of ' : ''}${words ?? `(${item.expected})`}`,
    ok: (v) => Array.isArray(v) && v.length >= least && v.every((each) => item.ok(each)),
  };
}

/** An object whose every field is of one kind. */
export function recordOf(item: Kind, words: string): Kind {
  return { expected: words, ok: (v) => isPlain(v) && Object.values(v).every((each) => item.ok(each)) };
}

/** Any of several kinds. */
export function either(...kinds: readonly Kind[]): Kind {
  return {
    expected: [...new Set(kinds.map(({ expected }) => expected))].join(', or '),
    ok: (v) => kinds.some(({ ok }) => ok(v)),
  };
}

/** A kind, or null, which turns the option off. */
export function orNull(kind: Kind): Kind {
  return { expected: `${kind.expected}, or null`, ok: (v) => v === null || kind.ok(v) };
}

/** The same test in other words. */
export function named(expected: string, kind: Kind | ((value: unknown) => boolean)): Kind {
  return { expected, ok: typeof kind === 'function' ? kind : kind.ok };
}

/** An object that has these methods: an instance of a class, or what behaves like one. */
export function having(expected: string, ...methods: readonly string[]): Kind {
  return {
    expected,
    ok: (v) => (isObject(v) || typeof v === 'function') && methods.every((m) => typeof (v as Fields)[m] === 'function'),
  };
}

type Fields = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null;
}

/** An object as `{}` makes one. */
export function isPlain(value: unknown): value is Fields {
  if (!isObject(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null || Object.getPrototypeOf(prototype) === null;
}
