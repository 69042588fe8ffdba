/** Texts and numbers of a JSON schema as rules of a grammar. */
import { badParam } from '../errors.js';
import { integers } from './digits.js';
import { FORMATS } from './json_rules.js';
import { multiples } from './multiples.js';
import { patternRule } from './pattern.js';
import { RegexFault } from './regex.js';
import {
  badKeyword,
  bound,
  bounds,
  type Fields,
  multipleOf,
  noValue,
  type NumberBounds,
  wholeBounds,
  wholeWithin,
} from './schema_fields.js';

/** Where rules go. */
export interface RuleWriter {
  /** A new rule. @returns its name */
  rule(body: string): string;
  /** Gives a rule its right side. */
  set(name: string, body: string): void;
}

/** The right side of a text's rule. @param at where the schema stands in the request, for messages @throws ApiError */
export function stringRule(fields: Fields, at: string, writer: RuleWriter): string {
  const { minLength, maxLength, format, pattern } = fields;
  if (pattern !== undefined && format !== undefined) throw badKeyword(`${at}.pattern`, "it stands beside 'format'");
  if (format !== undefined) {
    const form = typeof format === 'string' && Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
    if (form === undefined) throw badKeyword(`${at}.format`, `formats are ${Object.keys(FORMATS).join(', ')}`);
    if (minLength !== undefined || maxLength !== undefined)
      throw badKeyword(`${at}.format`, 'it stands beside a length');
    return `"\\"" ${form} "\\""`;
  }
  if (pattern === undefined && minLength === undefined && maxLength === undefined) return 'string';
  const [min, max] = [
    bound(minLength ?? 0, `${at}.minLength`),
    maxLength === undefined ? Infinity : bound(maxLength, `${at}.maxLength`),
  ];
  if (min > max) throw noValue(at);
  if (pattern !== undefined) return patternOf(pattern, { min, max }, at, writer);
  if (max === Infinity) return `"\\"" char{${min}} char* "\\""`;
  return max === 0 ? '"\\"\\""' : `"\\"" char{${min},${max}} "\\""`;
}

function patternOf(pattern: unknown, length: { min: number; max: number }, at: string, writer: RuleWriter): string {
  const where = `${at}.pattern`;
  if (typeof pattern !== 'string') throw badParam(where, `'${where}' is no text.`, 'invalid_schema');
  try {
    const rule = patternRule(pattern, length, {
      reserve: () => writer.rule(''),
      set: (name, body) => writer.set(name, body),
    });
    if (rule === null) throw noValue(at);
    return `"\\"" ${rule} "\\""`;
  } catch (error) {
    if (!(error instanceof RegexFault)) throw error;
    if (error.invalid) throw badParam(where, `'${where}' ${error.message}.`, 'invalid_schema');
    throw badKeyword(where, `it ${error.message}`);
  }
}

function multiplesOf(of: number, within: NumberBounds, at: string, writer: RuleWriter): string {
  const found = multiples(of, ...wholeBounds(within), (body) => writer.rule(body));
  if (found === null)
    throw badKeyword(`${at}.multipleOf`, `${of} needs too many rules; give a smaller one, or closer bounds`);
  if (found.length === 0) throw noValue(at);
  return found.join(' | ');
}

/** The right side of a whole number's rule. @throws ApiError */
export function integerRule(fields: Fields, at: string, writer: RuleWriter): string {
  const within = bounds(fields, at);
  const of = multipleOf(fields, at);
  if (of !== null) return multiplesOf(of, within, at, writer);
  const found = wholeWithin(within);
  if (found.length === 0) throw noValue(at);
  return found.join(' | ');
}

/** Without bounds any number; with them whole ones, and those with a fraction between two whole ones within the bounds. @throws ApiError */
export function numberRule(fields: Fields, at: string, writer: RuleWriter): string {
  const within = bounds(fields, at);
  const of = multipleOf(fields, at);
  // what a whole number divides is whole
  if (of !== null) return multiplesOf(of, within, at, writer);
  const { low, high } = within;
  if (low === -Infinity && high === Infinity) return 'number';
  // n.f lies between n and n + 1, and -n.f between -n - 1 and -n
  const positive = integers(Math.max(0, Math.ceil(low)), Math.floor(high) - 1);
  const negative = integers(Math.max(0, Math.ceil(-high)), Math.floor(-low) - 1);
  const parts = wholeWithin(within);
  const fraction = '"." [0-9]{0,5} [1-9]';
  if (positive.length) parts.push(`(${positive.join(' | ')}) ${fraction}`);
  if (negative.length) parts.push(`"-" (${negative.join(' | ')}) ${fraction}`);
  if (parts.length === 0) throw badKeyword(`${at}.minimum`, 'there is no whole number between the bounds');
  return parts.join(' | ');
}

/** All whole numbers that fit, where there are fewer than `most`; else null. @throws ApiError */
export function finiteIntegers(fields: Fields, at: string, most: number): number[] | null {
  const [low, high] = wholeBounds(bounds(fields, at));
  const of = multipleOf(fields, at) ?? 1;
  const first = Math.ceil(low / of) * of;
  if (!Number.isFinite(high - first) || (high - first) / of >= most) return null;
  const values: number[] = [];
  for (let value = first; value <= high; value += of) values.push(value === 0 ? 0 : value);
  return values;
}
