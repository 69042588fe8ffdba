/**
 * A JSON schema as a grammar (in xgrammar's EBNF) whose every text is JSON that fits it. Keywords that no grammar here can hold to are
 * refused by name. (xgrammar's own conversion leaves some of them out without a word, and ends its program at others.)
 */
import { type ApiError, badParam } from '../errors.js';
import { integers } from './digits.js';

type Fields = Readonly<Record<string, unknown>>;

/** What says something to readers only. */
const ANNOTATIONS = new Set([
  ...['title', 'description', 'default', 'examples', 'deprecated', 'readOnly', 'writeOnly'],
  ...['$schema', '$id', '$comment', '$defs', 'definitions', '$anchor', 'contentMediaType'],
]);

/** Keywords by the type that they are about. */
const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  boolean: [],
  null: [],
};
const TYPES = Object.keys(KEYWORDS);

/** Most characters or elements that a bound may name: each is a state of the grammar. */
const MOST_REPEATED = 4096;
/** Most rules of one grammar. */
const MOST_RULES = 20_000;
/** Deepest nesting of a schema. */
const DEEPEST = 64;

/** Rules for JSON of any kind, without numbers that no double holds and without halves of surrogate pairs. */
const JSON_RULES = `
sp ::= "" | " "
nl ::= "" | " " | "\\n" [ ]{0,32}
hex ::= [0-9a-fA-F]
char ::= [^"\\\\\\x00-\\x1f\\x7f] | "\\\\" escape
escape ::= ["\\\\/bfnrt] | "u" unit
unit ::= [0-9a-cA-CeEfF] hex hex hex | [dD] [0-7] hex hex
string ::= "\\"" char* "\\""
int ::= "0" | [1-9] [0-9]{0,14}
fraction ::= "" | "." [0-9]{1,15}
exponent ::= "" | [eE] [+\\-]? [0-9]{1,2}
number ::= "-"? int fraction exponent
object ::= "{" nl "}" | "{" nl member ("," nl member)* nl "}"
member ::= string ":" sp value
array ::= "[" nl "]" | "[" nl value ("," nl value)* nl "]"
value ::= object | array | string | number | "true" | "false" | "null"
`;

const FORMATS: Readonly<Record<string, string>> = {
  date: 'date',
  time: 'time "Z"',
  'date-time': 'date "T" time "Z"',
  uuid: 'hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}',
  ipv4: 'byte "." byte "." byte "." byte',
  email: '[a-z0-9]{1,32} ("." [a-z0-9]{1,32})? "@" [a-z0-9]{1,32} "." [a-z]{2,8}',
};
const FORMAT_RULES = `
date ::= [12] [0-9]{3} "-" day
day ::= ("01"|"03"|"05"|"07"|"08"|"10"|"12") "-" (d28 | "29" | "30" | "31") | ("04"|"06"|"09"|"11") "-" (d28 | "29" | "30") | "02-" d28
d28 ::= "0" [1-9] | "1" [0-9] | "2" [0-8]
time ::= ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9]
byte ::= ${integers(0, 255).join(' | ')}
`;

/** Any JSON object. */
export function jsonObjectGrammar(): string {
  return `root ::= object\n${JSON_RULES}`;
}

/**
 * @param schema as the client sent it @param param where it stands in the request, for messages
 * @throws ApiError for a keyword that is not supported, and for a schema that no value fits
 */
export function schemaGrammar(schema: unknown, param: string): string {
  return `${schemaRules(schema, param).join('\n')}\n${JSON_RULES}${FORMAT_RULES}`;
}

/** The rules of a schema alone. @param root name of the rule of the whole, with which the names of all begin */
export function schemaRules(schema: unknown, param: string, root = 'root'): string[] {
  return new Conversion(schema, param, root).rules;
}

/** Rules that those of schemaRules() name. */
export const SHARED_RULES = JSON_RULES + FORMAT_RULES;

/** A text as a literal of the grammar. */
export function literal(text: string): string {
  const escaped = Array.from(text, (character) => {
    const code = character.codePointAt(0)!;
    if (character === '"' || character === '\\') return `\\${character}`;
    if (code >= 0x20 && code < 0x7f) return character;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
  });
  return `"${escaped.join('')}"`;
}

class Conversion {
  readonly rules: string[] = [];
  private count = 0;
  /** Names of the rules of `$ref`s. */
  private readonly references = new Map<string, string>();

  constructor(
    private readonly schema: unknown,
    private readonly param: string,
    private readonly prefix: string,
  ) {
    this.references.set('#', prefix);
    this.rules.push('');
    this.rules[0] = `${prefix} ::= ${this.body(schema, param, 0)}`;
    this.checkFinite(schema, param, new Set(['#']));
  }

  private rule(body: string): string {
    if (this.rules.length >= MOST_RULES) throw badParam(this.param, 'The schema is too large.', 'schema_too_large');
    const name = `${this.prefix}_${++this.count}`;
    this.rules.push(`${name} ::= ${body}`);
    return name;
  }

  /** The right side of a rule. */
  private body(schema: unknown, at: string, depth: number): string {
    if (depth > DEEPEST) throw badParam(at, `The schema is nested deeper than ${DEEPEST}.`, 'schema_too_deep');
    if (schema === true) return 'value';
    if (schema === false) throw noValue(at);
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
      throw badParam(at, `'${at}' is no schema; expected an object.`, 'invalid_schema');
    const fields = schema as Fields;
    const given = Object.keys(fields).filter((name) => !ANNOTATIONS.has(name));
    const alone = (name: string, ...beside: string[]): void => {
      const other = given.find((each) => each !== name && !beside.includes(each));
      if (other !== undefined) throw badKeyword(`${at}.${other}`, `it stands beside '${name}'`);
    };
    if ('$ref' in fields) {
      alone('$ref');
      return this.reference(fields.$ref, at, depth);
    }
    if ('const' in fields) {
      alone('const', 'type');
      return this.literals([fields.const], fields, at);
    }
    if ('enum' in fields) {
      alone('enum', 'type');
      if (!Array.isArray(fields.enum)) throw badParam(`${at}.enum`, `'${at}.enum' is no list.`, 'invalid_schema');
      return this.literals(fields.enum, fields, at);
    }
    if ('allOf' in fields) {
      alone('allOf');
      const [one, ...more] = listOf(fields.allOf, `${at}.allOf`);
      if (more.length) throw badKeyword(`${at}.allOf`, 'it has more than one schema');
      return this.body(one, `${at}.allOf[0]`, depth + 1);
    }
    for (const name of ['anyOf', 'oneOf'] as const) {
      if (!(name in fields)) continue;
      alone(name);
      const branches = listOf(fields[name], `${at}.${name}`);
      if (name === 'oneOf') this.checkDisjoint(branches, `${at}.oneOf`);
      return branches
        .map((each, index) => this.rule(this.body(each, `${at}.${name}[${index}]`, depth + 1)))
        .join(' | ');
    }
    return this.typed(fields, given, at, depth);
  }

  private typed(fields: Fields, given: readonly string[], at: string, depth: number): string {
    const types = typesOf(fields, at);
    const known = new Set(['type', ...types.flatMap((type) => KEYWORDS[type]!)]);
    const wrong = given.find((name) => !known.has(name));
    if (wrong !== undefined) throw badKeyword(`${at}.${wrong}`, 'no grammar here holds to it');
    if (given.length === 0) return 'value';
    const parts = types.flatMap((type): string[] => {
      switch (type) {
        case 'object':
          return [this.object(fields, at, depth)];
        case 'array':
          return [this.array(fields, at, depth)];
        case 'string':
          return [this.string(fields, at)];
        case 'number':
          return [this.number(fields, at)];
        case 'integer':
          return types.includes('number') ? [] : [this.integer(fields, at)];
        case 'boolean':
          return ['"true" | "false"'];
        default:
          return ['"null"'];
      }
    });
    return parts.length === 1 ? parts[0]! : parts.map((part) => this.rule(part)).join(' | ');
  }

  private literals(values: readonly unknown[], fields: Fields, at: string): string {
    const types = 'type' in fields ? typesOf(fields, at) : TYPES;
    const fitting = values.filter((value) => types.some((type) => isOf(value, type)));
    if (fitting.length === 0) throw noValue(at);
    return fitting.map((value) => literal(JSON.stringify(value))).join(' | ');
  }

  private reference(ref: unknown, at: string, depth: number): string {
    if (typeof ref !== 'string') throw badParam(`${at}.$ref`, `'${at}.$ref' is no text.`, 'invalid_schema');
    const known = this.references.get(ref);
    if (known !== undefined) return known;
    const name = `${this.prefix}_ref${this.references.size}`;
    this.references.set(ref, name);
    const target = this.resolve(ref, at);
    const index = this.rules.push('') - 1;
    this.rules[index] = `${name} ::= ${this.body(target, at, depth + 1)}`;
    return name;
  }

  private resolve(ref: string, at: string): unknown {
    if (ref === '#') return this.schema;
    if (!ref.startsWith('#/')) throw badKeyword(`${at}.$ref`, "it names another document; references begin with '#/'");
    let target: unknown = this.schema;
    for (const part of ref.slice(2).split('/')) {
      const name = decode(part);
      target =
        typeof target === 'object' && target !== null && Object.hasOwn(target, name)
          ? (target as Fields)[name]
          : undefined;
      if (target === undefined)
        throw badParam(`${at}.$ref`, `'${at}.$ref' names '${ref.slice(0, 80)}', which is not there.`, 'invalid_schema');
    }
    return target;
  }

  private object(fields: Fields, at: string, depth: number): string {
    const properties = (fields.properties ?? {}) as Fields;
    if (typeof properties !== 'object' || Array.isArray(properties))
      throw badParam(`${at}.properties`, `'${at}.properties' is no object.`, 'invalid_schema');
    const required = new Set(fields.required === undefined ? [] : listOf(fields.required, `${at}.required`, true));
    const { additionalProperties: more = true } = fields;
    for (const name of required) {
      if (typeof name !== 'string')
        throw badParam(`${at}.required`, `'${at}.required' is no list of names.`, 'invalid_schema');
      if (!Object.hasOwn(properties, name) && more === false) throw noValue(at);
    }
    const missing = [...required].filter((name) => !Object.hasOwn(properties, name as string)) as string[];
    const entries = [
      ...Object.entries(properties).map(([name, each]) => [name, each, `${at}.properties.${name}`] as const),
      ...missing.map((name) => [name, more, `${at}.additionalProperties`] as const),
    ];
    if (entries.length === 0) {
      if (more === false) return '"{" nl "}"';
      if (more === true) return 'object';
      const value = this.rule(this.body(more, `${at}.additionalProperties`, depth + 1));
      const member = this.rule(`string ":" sp ${value}`);
      return `"{" nl "}" | "{" nl ${member} ("," nl ${member})* nl "}"`;
    }
    // from the last: what may follow, where nothing and where something stands before
    let first = '""';
    let further = '""';
    for (const [name, each, path] of entries.toReversed()) {
      const optional = !required.has(name);
      if (optional && each === false) continue;
      const member = this.rule(
        `${literal(JSON.stringify(name))} ":" sp ${this.rule(this.body(each, path, depth + 1))}`,
      );
      const nextFirst = `${member} ${further}${optional ? ` | ${first}` : ''}`;
      const nextFurther = `"," nl ${member} ${further}${optional ? ` | ${further}` : ''}`;
      first = this.rule(nextFirst);
      further = this.rule(nextFurther);
    }
    return `"{" nl ${first} nl "}"`;
  }

  private array(fields: Fields, at: string, depth: number): string {
    const { minItems: least = 0, maxItems: most } = fields;
    const [min, max] = [bound(least, `${at}.minItems`), most === undefined ? Infinity : bound(most, `${at}.maxItems`)];
    if (min > max) throw noValue(at);
    const first = fields.prefixItems === undefined ? [] : listOf(fields.prefixItems, `${at}.prefixItems`);
    if (first.length > 0) {
      // as many as there are schemas: a list of fixed length fits, whatever may follow
      if (first.length < min || first.length > max)
        throw badKeyword(`${at}.prefixItems`, 'minItems or maxItems ask for another length');
      const items = first.map((each, index) => this.rule(this.body(each, `${at}.prefixItems[${index}]`, depth + 1)));
      return `"[" nl ${items.join(' "," nl ')} nl "]"`;
    }
    if (max === 0 || fields.items === false) {
      if (min > 0) throw noValue(at);
      return '"[" nl "]"';
    }
    const item = this.rule(this.body(fields.items ?? true, `${at}.items`, depth + 1));
    const more = max === Infinity ? `${Math.max(0, min - 1)},` : `${Math.max(0, min - 1)},${max - 1}`;
    const rest = max === Infinity && min <= 1 ? `("," nl ${item})*` : max === 1 ? '' : `("," nl ${item}){${more}}`;
    const filled = `"[" nl ${item} ${rest} nl "]"`;
    return min === 0 ? `"[" nl "]" | ${filled}` : filled;
  }

  private string(fields: Fields, at: string): string {
    const { minLength, maxLength, format } = fields;
    if (format !== undefined) {
      const form = typeof format === 'string' && Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
      if (form === undefined) throw badKeyword(`${at}.format`, `formats are ${Object.keys(FORMATS).join(', ')}`);
      if (minLength !== undefined || maxLength !== undefined)
        throw badKeyword(`${at}.format`, 'it stands beside a length');
      return `"\\"" ${form} "\\""`;
    }
    if (minLength === undefined && maxLength === undefined) return 'string';
    const [min, max] = [
      bound(minLength ?? 0, `${at}.minLength`),
      maxLength === undefined ? Infinity : bound(maxLength, `${at}.maxLength`),
    ];
    if (min > max) throw noValue(at);
    if (max === Infinity) return `"\\"" char{${min}} char* "\\""`;
    return max === 0 ? '"\\"\\""' : `"\\"" char{${min},${max}} "\\""`;
  }

  private integer(fields: Fields, at: string): string {
    const found = wholeWithin(bounds(fields, at));
    if (found.length === 0) throw noValue(at);
    return found.join(' | ');
  }

  /** Without bounds any number; with them whole ones, and those with a fraction between two whole ones within the bounds. */
  private number(fields: Fields, at: string): string {
    const within = bounds(fields, at);
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

  /** Exactly one of them must fit: where two may fit one value, no grammar says so. */
  private checkDisjoint(branches: readonly unknown[], at: string): void {
    const kinds = branches.map((each) => this.kindsOf(each, at));
    for (const [i, a] of kinds.entries())
      for (const b of kinds.slice(i + 1)) {
        const sameTypes = a.types.some((x) =>
          b.types.some((y) => x === y || [x, y].sort().join() === 'integer,number'),
        );
        const told = Object.keys(a.constants).some((name) => {
          const other = b.constants[name];
          return other !== undefined && !a.constants[name]!.some((value) => other.includes(value));
        });
        const apart = a.values && b.values && !a.values.some((value) => b.values!.includes(value));
        if (sameTypes && !told && !apart) throw badKeyword(at, 'two of its schemas may fit one value; use anyOf');
      }
  }

  private kindsOf(
    schema: unknown,
    at: string,
  ): { types: readonly string[]; constants: Record<string, string[]>; values: string[] | null } {
    let fields = schema as Fields;
    for (let step = 0; step < DEEPEST && typeof fields?.$ref === 'string'; step++)
      fields = this.resolve(fields.$ref, at) as Fields;
    if (typeof fields !== 'object' || fields === null) return { types: TYPES, constants: {}, values: null };
    const constants: Record<string, string[]> = {};
    const required = Array.isArray(fields.required) ? (fields.required as unknown[]) : [];
    for (const [name, each] of Object.entries((fields.properties ?? {}) as Record<string, Fields>)) {
      const values = valuesOf(each);
      if (values && required.includes(name)) constants[name] = values;
    }
    const values = valuesOf(fields);
    const types = 'type' in fields ? typesOf(fields, at) : TYPES;
    return { types, constants, values };
  }

  /** Whether a value of finite size fits: a schema may ask for itself without end. */
  private checkFinite(schema: unknown, at: string, open: ReadonlySet<string>): void {
    if (!this.finite(schema, open))
      throw badParam(at, 'No value of finite size fits the schema: it asks for itself without end.', 'invalid_schema');
  }

  private finite(schema: unknown, open: ReadonlySet<string>): boolean {
    if (typeof schema !== 'object' || schema === null) return schema !== false;
    const fields = schema as Fields;
    if (typeof fields.$ref === 'string') {
      if (open.has(fields.$ref)) return false;
      return this.finite(this.resolve(fields.$ref, this.param), new Set([...open, fields.$ref]));
    }
    for (const name of ['anyOf', 'oneOf'] as const)
      if (Array.isArray(fields[name])) return (fields[name] as unknown[]).some((each) => this.finite(each, open));
    if (Array.isArray(fields.allOf)) return (fields.allOf as unknown[]).every((each) => this.finite(each, open));
    if ('const' in fields || 'enum' in fields) return true;
    const types = 'type' in fields ? typesOf(fields, this.param) : null;
    if (types && types.some((type) => type !== 'object' && type !== 'array')) return true;
    const properties = (fields.properties ?? {}) as Fields;
    const required = Array.isArray(fields.required) ? (fields.required as string[]) : [];
    const objectOk = required.every((name) => !Object.hasOwn(properties, name) || this.finite(properties[name], open));
    const arrayOk =
      !(Number(fields.minItems ?? 0) > 0 && !this.finite(fields.items ?? true, open)) &&
      (!Array.isArray(fields.prefixItems) ||
        (fields.prefixItems as unknown[]).every((each) => this.finite(each, open)));
    if (!types) return objectOk && arrayOk;
    return (types.includes('object') && objectOk) || (types.includes('array') && arrayOk);
  }
}

function valuesOf(fields: Fields): string[] | null {
  if (typeof fields !== 'object' || fields === null) return null;
  if ('const' in fields) return [JSON.stringify(fields.const)];
  return Array.isArray(fields.enum) ? (fields.enum as unknown[]).map((value) => JSON.stringify(value)) : null;
}

/** The types of a schema: those it names, else those that its keywords are about, else all. */
function typesOf(fields: Fields, at: string): readonly string[] {
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

function isOf(value: unknown, type: string): boolean {
  if (type === 'null') return value === null;
  if (type === 'array') return Array.isArray(value);
  if (type === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value);
  if (type === 'integer') return Number.isInteger(value);
  return typeof value === type;
}

function listOf(value: unknown, at: string, mayBeEmpty = false): readonly unknown[] {
  if (Array.isArray(value) && (mayBeEmpty || value.length > 0)) return value as unknown[];
  throw badParam(at, `'${at}' is no list${mayBeEmpty ? '' : ' of at least one'}.`, 'invalid_schema');
}

function bound(value: unknown, at: string): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
    throw badParam(at, `'${at}' is no whole number of 0 or more.`, 'invalid_schema');
  if (value > MOST_REPEATED) throw badKeyword(at, `it is above ${MOST_REPEATED}`);
  return value;
}

interface NumberBounds {
  low: number;
  high: number;
  openLow: boolean;
  openHigh: boolean;
}

function bounds(fields: Fields, at: string): NumberBounds {
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

/** The whole numbers within, as alternatives. */
function wholeWithin({ low, high, openLow, openHigh }: NumberBounds): string[] {
  return integers(openLow ? Math.floor(low) + 1 : Math.ceil(low), openHigh ? Math.ceil(high) - 1 : Math.floor(high));
}

function decode(part: string): string {
  let text = part;
  try {
    text = decodeURIComponent(part);
  } catch {
    // no URI: taken as it is
  }
  return text.replaceAll('~1', '/').replaceAll('~0', '~');
}

function badKeyword(at: string, why: string): ApiError {
  return badParam(at, `'${at}' is not supported: ${why}.`, 'unsupported_schema');
}

function noValue(at: string): ApiError {
  return badParam(at, `No value fits the schema at '${at}'.`, 'invalid_schema');
}
