/**
 * A JSON schema as a grammar (in xgrammar's EBNF) whose every text is JSON that fits it. Keywords that no grammar here can hold to are
 * refused by name. (xgrammar's own conversion leaves some of them out without a word, and ends its program at others.)
 */
import { badParam } from '../errors.js';
import { jsonLiteral, SHARED_RULES } from './json_rules.js';
import { finiteIntegers, integerRule, numberRule, type RuleWriter, stringRule } from './schema_scalars.js';
import {
  badKeyword,
  bound,
  decodePart,
  type Fields,
  isOf,
  listOf,
  noValue,
  TYPES,
  KEYWORDS,
  typesOf,
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

class Conversion {
  readonly rules: string[] = [];
  private count = 0;
  private readonly writer: RuleWriter = {
    rule: (body) => this.rule(body),
    set: (name, body) => this.write(name, body),
  };
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
          return [stringRule(fields, at, this.writer)];
        case 'number':
          return [numberRule(fields, at, this.writer)];
        case 'integer':
          return types.includes('number') ? [] : [integerRule(fields, at, this.writer)];
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
      return type === 'integer' ? finiteIntegers(fields, at, MOST_VALUES) : null;
    });
    return lists.includes(null) ? null : lists.flatMap((list) => list ?? []);
  }
}
