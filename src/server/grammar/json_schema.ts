/**
 * A JSON schema as a grammar (in xgrammar's EBNF) whose every text is JSON that fits it. Keywords that no grammar here can hold to are
 * refused by name. (xgrammar's own conversion leaves some of them out without a word, and ends its program at others.)
 */
import { badParam } from '../errors.js';
import { CODE_POINT_RULES, withEscapedSpaces } from './code_points.js';
import { integers } from './digits.js';
import { multiples } from './multiples.js';
import { patternRule } from './pattern.js';
import { RegexFault } from './regex.js';
import {
  badKeyword,
  bound,
  bounds,
  decodePart,
  type Fields,
  isOf,
  listOf,
  multipleOf,
  noValue,
  type NumberBounds,
  TYPES,
  KEYWORDS,
  typesOf,
  wholeBounds,
  wholeWithin,
} from './schema_fields.js';
import { checkDisjoint, checkFinite, type LookUp } from './schema_checks.js';
import { canonical, uniqueList } from './unique.js';

/** What says something to readers only. */
const ANNOTATIONS = new Set([
  ...['title', 'description', 'default', 'examples', 'deprecated', 'readOnly', 'writeOnly'],
  ...['$schema', '$id', '$comment', '$defs', 'definitions', '$anchor', 'contentMediaType'],
]);

/** Most rules of one grammar. */
const MOST_RULES = 20_000;
/** Most values of which a list without repetitions is made. */
const MOST_VALUES = 64;
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
  return `${schemaRules(schema, param).join('\n')}\n${SHARED_RULES}`;
}

/** The rules of a schema alone. @param root name of the rule of the whole, with which the names of all begin */
export function schemaRules(schema: unknown, param: string, root = 'root'): string[] {
  return new Conversion(schema, param, root).rules;
}

/** Rules that those of schemaRules() name. */
export const SHARED_RULES = JSON_RULES + FORMAT_RULES + CODE_POINT_RULES;

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

/** A value as the literal of its JSON. */
function jsonLiteral(value: unknown): string {
  return literal(withEscapedSpaces(JSON.stringify(value)));
}

class Conversion {
  readonly rules: string[] = [];
  private count = 0;
  private readonly lookUp: LookUp = (ref, at) => this.resolve(ref, at);
  /** Where rules stand, by their names. */
  private readonly places = new Map<string, number>();
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
    checkFinite(schema, param, this.lookUp);
  }

  private rule(body: string): string {
    if (this.rules.length >= MOST_RULES) throw badParam(this.param, 'The schema is too large.', 'schema_too_large');
    const name = `${this.prefix}_${++this.count}`;
    this.places.set(name, this.rules.push(`${name} ::= ${body}`) - 1);
    return name;
  }

  /** Gives a rule its right side. */
  private write(name: string, body: string): void {
    const at = this.places.get(name)!;
    this.rules[at] = `${name} ::= ${body}`;
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
      if (name === 'oneOf') checkDisjoint(branches, `${at}.oneOf`, this.lookUp);
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
    return fitting.map(jsonLiteral).join(' | ');
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
      const name = decodePart(part);
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
      const member = this.rule(`${jsonLiteral(name)} ":" sp ${this.rule(this.body(each, path, depth + 1))}`);
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
    if (fields.uniqueItems !== undefined && typeof fields.uniqueItems !== 'boolean')
      throw badParam(`${at}.uniqueItems`, `'${at}.uniqueItems' is neither true nor false.`, 'invalid_schema');
    if (fields.uniqueItems === true && max > 1) return this.uniqueItems(fields, { min, max }, at);
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

  /** Of values that can be counted up: which of them came is what the grammar remembers. */
  private uniqueItems(fields: Fields, length: { min: number; max: number }, at: string): string {
    if (fields.prefixItems !== undefined) throw badKeyword(`${at}.uniqueItems`, "it stands beside 'prefixItems'");
    if (fields.items === false) {
      if (length.min > 0) throw noValue(at);
      return '"[" nl "]"';
    }
    const values = this.finiteValues(fields.items ?? true, `${at}.items`, 0);
    if (values === null)
      throw badKeyword(
        `${at}.uniqueItems`,
        `'items' must be one of at most ${MOST_VALUES} values (enum, const, boolean, a whole number between bounds), or 'maxItems' 1`,
      );
    // one value may have several texts
    const spelt = new Map<string, string[]>();
    for (const value of values)
      spelt.set(canonical(value), [...(spelt.get(canonical(value)) ?? []), jsonLiteral(value)]);
    if (spelt.size < length.min) throw noValue(at);
    const rules = [...spelt.values()].map((texts) => this.rule([...new Set(texts)].join(' | ')));
    const list = uniqueList(rules, length, (body) => this.rule(body));
    if (list !== null) return list;
    throw badKeyword(`${at}.uniqueItems`, `${spelt.size} values have too many orders; give a smaller maxItems`);
  }

  /** The values of a schema that has few; null for others. */
  private finiteValues(schema: unknown, at: string, depth: number): unknown[] | null {
    if (typeof schema !== 'object' || schema === null || depth > DEEPEST) return null;
    const fields = schema as Fields;
    // whatever is wrong with it is told here
    this.body(schema, at, depth);
    if (typeof fields.$ref === 'string') return this.finiteValues(this.resolve(fields.$ref, at), at, depth + 1);
    for (const name of ['anyOf', 'oneOf', 'allOf'] as const) {
      if (!Array.isArray(fields[name])) continue;
      const lists = (fields[name] as unknown[]).map((each) => this.finiteValues(each, at, depth + 1));
      const all = lists.flatMap((list) => list ?? []);
      return lists.includes(null) || all.length > MOST_VALUES ? null : all;
    }
    const types = 'type' in fields || !('const' in fields || 'enum' in fields) ? typesOf(fields, at) : TYPES;
    if ('const' in fields) return [fields.const];
    if ('enum' in fields) {
      const fitting = (fields.enum as unknown[]).filter((value) => types.some((type) => isOf(value, type)));
      return fitting.length > MOST_VALUES ? null : fitting;
    }
    const lists = types.map((type): unknown[] | null => {
      if (type === 'boolean') return [true, false];
      if (type === 'null') return [null];
      return type === 'integer' ? this.finiteIntegers(fields, at) : null;
    });
    return lists.includes(null) ? null : lists.flatMap((list) => list ?? []);
  }

  private finiteIntegers(fields: Fields, at: string): number[] | null {
    const [low, high] = wholeBounds(bounds(fields, at));
    const of = multipleOf(fields, at) ?? 1;
    const first = Math.ceil(low / of) * of;
    if (!Number.isFinite(high - first) || (high - first) / of >= MOST_VALUES) return null;
    const values: number[] = [];
    for (let value = first; value <= high; value += of) values.push(value === 0 ? 0 : value);
    return values;
  }

  private string(fields: Fields, at: string): string {
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
    if (pattern !== undefined) return this.pattern(pattern, { min, max }, at);
    if (max === Infinity) return `"\\"" char{${min}} char* "\\""`;
    return max === 0 ? '"\\"\\""' : `"\\"" char{${min},${max}} "\\""`;
  }

  private pattern(pattern: unknown, length: { min: number; max: number }, at: string): string {
    const where = `${at}.pattern`;
    if (typeof pattern !== 'string') throw badParam(where, `'${where}' is no text.`, 'invalid_schema');
    try {
      const rule = patternRule(pattern, length, {
        reserve: () => this.rule(''),
        set: (name, body) => this.write(name, body),
      });
      if (rule === null) throw noValue(at);
      return `"\\"" ${rule} "\\""`;
    } catch (error) {
      if (!(error instanceof RegexFault)) throw error;
      if (error.invalid) throw badParam(where, `'${where}' ${error.message}.`, 'invalid_schema');
      throw badKeyword(where, `it ${error.message}`);
    }
  }

  private multiples(of: number, within: NumberBounds, at: string): string {
    const found = multiples(of, ...wholeBounds(within), (body) => this.rule(body));
    if (found === null)
      throw badKeyword(`${at}.multipleOf`, `${of} needs too many rules; give a smaller one, or closer bounds`);
    if (found.length === 0) throw noValue(at);
    return found.join(' | ');
  }

  private integer(fields: Fields, at: string): string {
    const within = bounds(fields, at);
    const of = multipleOf(fields, at);
    if (of !== null) return this.multiples(of, within, at);
    const found = wholeWithin(within);
    if (found.length === 0) throw noValue(at);
    return found.join(' | ');
  }

  /** Without bounds any number; with them whole ones, and those with a fraction between two whole ones within the bounds. */
  private number(fields: Fields, at: string): string {
    const within = bounds(fields, at);
    const of = multipleOf(fields, at);
    // what a whole number divides is whole
    if (of !== null) return this.multiples(of, within, at);
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
}
