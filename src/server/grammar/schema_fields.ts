/** Reading the fields of a JSON schema: types, bounds, lists, and what is wrong with them. */
import { type ApiError, badParam } from '../errors.js';
import { integers } from './digits.js';

export type Fields = Readonly<Record<string, unknown>>;

/** Keywords by the type that they are about. */
export const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems', 'uniqueItems'],
  string: ['minLength', 'maxLength', 'format', 'pattern'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  boolean: [],
  null: [],
};
export const TYPES = Object.keys(KEYWORDS);

/** Most characters or elements that a bound may name: each is a state of the grammar. */
const MOST_REPEATED = 4096;
export function valuesOf(fields: Fields): string[] | null {
  if (typeof fields !== 'object' || fields === null) return null;
  if ('const' in fields) return [JSON.stringify(fields.const)];
  return Array.isArray(fields.enum) ? (fields.enum as unknown[]).map((value) => JSON.stringify(value)) : null;
}

/** The types of a schema: those it names, else those that its keywords are about, else all. */
export function typesOf(fields: Fields, at: string): readonly string[] {
  const { type } = fields;
  if (type === undefined) {
    // without a type a keyword binds values of its own type only, and all others fit
    const about = TYPES.filter((each) => KEYWORDS[each]!.some((name) => name in fields));
    return about.length ? about : TYPES;
  }
  const types = Array.isArray(type) ? (type as unknown[]) : [type];
  for (const each of types)
    if (typeof each !== 'string' || !TYPES.includes(each))
      throw badParam(
        `${at}.type`,
        `'${at}.type' is ${JSON.stringify(each)?.slice(0, 80)}; expected ${TYPES.join(', ')}.`,
        'invalid_schema',
      );
  if (types.length === 0) throw noValue(at);
  return types as string[];
}

export function isOf(value: unknown, type: string): boolean {
  if (type === 'null') return value === null;
  if (type === 'array') return Array.isArray(value);
  if (type === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value);
  if (type === 'integer') return Number.isInteger(value);
  return typeof value === type;
}

export function listOf(value: unknown, at: string, mayBeEmpty = false): readonly unknown[] {
  if (Array.isArray(value) && (mayBeEmpty || value.length > 0)) return value as unknown[];
  throw badParam(at, `'${at}' is no list${mayBeEmpty ? '' : ' of at least one'}.`, 'invalid_schema');
}

export function bound(value: unknown, at: string): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
    throw badParam(at, `'${at}' is no whole number of 0 or more.`, 'invalid_schema');
  if (value > MOST_REPEATED) throw badKeyword(at, `it is above ${MOST_REPEATED}`);
  return value;
}

export interface NumberBounds {
  low: number;
  high: number;
  openLow: boolean;
  openHigh: boolean;
}

export function bounds(fields: Fields, at: string): NumberBounds {
  const read = (name: string, none: number): number => {
    const value = fields[name] ?? none;
    if (typeof value === 'number') return value;
    throw badParam(`${at}.${name}`, `'${at}.${name}' is no number.`, 'invalid_schema');
  };
  const [min, above] = [read('minimum', -Infinity), read('exclusiveMinimum', -Infinity)];
  const [max, below] = [read('maximum', Infinity), read('exclusiveMaximum', Infinity)];
  return {
    low: Math.max(min, above),
    high: Math.min(max, below),
    openLow: above >= min && above > -Infinity,
    openHigh: below <= max && below < Infinity,
  };
}

/** The least and the greatest whole number within. */
export function wholeBounds({ low, high, openLow, openHigh }: NumberBounds): [low: number, high: number] {
  return [openLow ? Math.floor(low) + 1 : Math.ceil(low), openHigh ? Math.ceil(high) - 1 : Math.floor(high)];
}

/** The whole numbers within, as alternatives. */
export function wholeWithin(within: NumberBounds): string[] {
  return integers(...wholeBounds(within));
}

/** What a number must be a multiple of; null where nothing is said. */
export function multipleOf(fields: Fields, at: string): number | null {
  const { multipleOf: of } = fields;
  const where = `${at}.multipleOf`;
  if (of === undefined) return null;
  if (typeof of !== 'number' || !(of > 0)) throw badParam(where, `'${where}' is no number above 0.`, 'invalid_schema');
  // a double is seldom the multiple of a fraction that its digits say
  if (!Number.isSafeInteger(of)) throw badKeyword(where, 'it is no whole number');
  return of;
}

export function decodePart(part: string): string {
  let text = part;
  try {
    text = decodeURIComponent(part);
  } catch {
    // no URI: taken as it is
  }
  return text.replaceAll('~1', '/').replaceAll('~0', '~');
}

export function badKeyword(at: string, why: string): ApiError {
  return badParam(at, `'${at}' is not supported: ${why}.`, 'unsupported_schema');
}

export function noValue(at: string): ApiError {
  return badParam(at, `No value fits the schema at '${at}'.`, 'invalid_schema');
}
