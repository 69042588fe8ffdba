/** Jinja's filters, as its filters.py has them. */
import { bind, integerOf, type Parameter, textOf } from './arguments.js';
import { TemplateFault } from './fault.js';
import { formatPercent, roundHalfEven } from './format.js';
import { json } from './json.js';
import { attributes, escaped, fileSize, wrapped } from './layout.js';
import { methodOf } from './methods.js';
import { toFloat, toInteger } from './numbers.js';
import { batches, dictsort, extreme, type Filter, type FilterHost, groupby, join, map, selecting, slices, sort, sum, unique } from './sequence_filters.js'; // prettier-ignore
import { capitalize, replace } from './text_methods.js';
import {
  type Arguments,
  characters,
  Float,
  iterate,
  Namespace,
  numberOf,
  repr,
  str,
  truth,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js';

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' };

/** The character of an entity of HTML. */
function unescaped(whole: string, name: string | undefined, code: number): string {
  if (name !== undefined) return ENTITIES[name]!;
  return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
}

const NOTHING: Arguments = { positional: [], named: new Map() };

function simple(name: string, parameters: readonly Parameter[], run: (value: Value, args: Value[]) => Value): Filter {
  return (value, args) => run(value, bind(name, args, parameters));
}

const tojson = simple(
  'tojson',
  [
    ['ensure_ascii', false],
    ['indent', null],
    ['separators', null],
    ['sort_keys', false],
  ],
  (value, [ascii, indent, separators, sortKeys]) => {
    const level = typeof indent === 'number' ? ' '.repeat(Math.min(indent, 100)) : (indent as string | null);
    const given = separators === null ? null : iterate(separators!).map(str);
    return json(value, {
      ensure_ascii: truth(ascii!),
      indent: level,
      separators: given ? [given[0]!, given[1]!] : [level === null ? ', ' : ',', ': '],
      sort_keys: truth(sortKeys!),
    });
  },
);

const escape = (value: Value): Value => escaped(str(value));

function indented(value: Value, [width, first, blank]: Value[]): string {
  const by = typeof width === 'string' ? width : ' '.repeat(integerOf('the width', width!));
  const lines = `${str(value)}\n`.split('\n').slice(0, -1);
  const rest = lines.slice(1).map((line) => (line === '' && !truth(blank!) ? line : by + line));
  return [truth(first!) ? by + lines[0]! : lines[0]!, ...rest].join('\n');
}

function truncated(value: Value, [length, kill, end, leeway]: Value[]): string {
  const [text, most, tail] = [characters(str(value)), integerOf('the length', length!), str(end!)];
  const slack = leeway === null ? 5 : integerOf('leeway', leeway!);
  const least = characters(tail).length;
  if (most < least) throw new TemplateFault(`expected length >= ${least}, got ${most}`);
  if (text.length <= most + slack) return text.join('');
  const cut = text.slice(0, most - least).join('');
  if (truth(kill!)) return cut + tail;
  const space = cut.lastIndexOf(' ');
  return (space < 0 ? cut : cut.slice(0, space)) + tail;
}

const lengthOf = (value: Value): number => {
  if (typeof value === 'string') return characters(value).length;
  if (numberOf(value) !== null || value === null)
    throw new TemplateFault(`object of type '${typeName(value)}' has no len()`);
  return value instanceof Map ? value.size : iterate(value).length;
};

const method = (name: string): Filter =>
  function call(value, args) {
    return methodOf(str(value), name)!.call(args);
  };

const fallback: Filter = (value, args) => {
  const [otherwise, falsy] = bind('default', args, [
    ['default_value', ''],
    ['boolean', false],
  ]);
  return value instanceof Undefined || (truth(falsy!) && !truth(value)) ? otherwise! : value;
};

const length: Filter = simple('length', [], lengthOf);
const oneOf = (value: Value, which: 'first' | 'last'): Value => {
  const item = iterate(value).at(which === 'first' ? 0 : -1);
  return item === undefined ? new Undefined(`No ${which} item, sequence was empty. It`) : item;
};

export const FILTERS: Readonly<Record<string, Filter>> = {
  abs: simple('abs', [], (value) => {
    const x = numberOf(value);
    if (x === null) throw new TemplateFault(`bad operand type for abs(): '${typeName(value)}'`);
    return value instanceof Float ? new Float(Math.abs(x)) : Math.abs(x);
  }),
  attr: simple('attr', ['name'], (value, [name]) => {
    const what = textOf('attr', name!);
    const own = value instanceof Namespace ? value.values.get(what) : methodOf(value, what);
    return own ?? new Undefined(`'${typeName(value)} object' has no attribute '${what}', which`);
  }),
  batch: simple('batch', ['linecount', ['fill_with', null]], batches),
  capitalize: simple('capitalize', [], (value) => capitalize(str(value))),
  center: simple('center', [['width', 80]], (value, [width]) =>
    methodOf(str(value), 'center')!.call({ positional: [width!], named: new Map() }),
  ),
  count: length,
  d: fallback,
  default: fallback,
  dictsort,
  e: simple('escape', [], escape),
  escape: simple('escape', [], escape),
  first: simple('first', [], (value) => oneOf(value, 'first')),
  filesizeformat: simple('filesizeformat', [['binary', false]], (value, [binary]) => fileSize(value, truth(binary!))),
  float: simple('float', [['default', new Float(0)]], (value, [otherwise]) => toFloat(value, otherwise!)),
  forceescape: simple('forceescape', [], escape),
  format: (value, { positional, named }) =>
    formatPercent(str(value), named.size > 0 ? new Map(named) : new Tuple(positional)),
  groupby,
  indent: simple(
    'indent',
    [
      ['width', 4],
      ['first', false],
      ['blank', false],
    ],
    indented,
  ),
  int: simple(
    'int',
    [
      ['default', 0],
      ['base', 10],
    ],
    (value, [otherwise, base]) => toInteger(value, otherwise!, integerOf('base', base!)),
  ),
  items: simple('items', [], (value) => {
    if (value instanceof Undefined) return [];
    if (!(value instanceof Map)) throw new TemplateFault('Can only get item pairs from a mapping.');
    return [...value].map((entry) => new Tuple(entry));
  }),
  join,
  last: simple('last', [], (value) => oneOf(value, 'last')),
  length,
  list: simple('list', [], (value) => [...iterate(value)]),
  lower: simple('lower', [], (value) => str(value).toLowerCase()),
  map,
  max: extreme('max', -1),
  min: extreme('min', 1),
  pprint: simple('pprint', [], repr),
  random: simple('random', [], (value) => {
    const items = iterate(value);
    if (items.length === 0) return new Undefined('No random item, sequence was empty. It');
    return items[Math.floor(Math.random() * items.length)]!;
  }),
  reject: selecting(false, false),
  rejectattr: selecting(false, true),
  replace: simple('replace', ['old', 'new', ['count', null]], (value, [old, fresh, count]) =>
    replace(str(value), str(old!), str(fresh!), count === null ? -1 : integerOf('count', count!)),
  ),
  reverse: simple('reverse', [], (value) =>
    typeof value === 'string' ? characters(value).reverse().join('') : [...iterate(value)].reverse(),
  ),
  round: simple(
    'round',
    [
      ['precision', 0],
      ['method', 'common'],
    ],
    (value, [precision, how]) => {
      const [x, digits] = [numberOf(value), integerOf('precision', precision!)];
      if (x === null) throw new TemplateFault(`type ${typeName(value)} doesn't define __round__ method`);
      if (how === 'common')
        return typeof value === 'number' ? roundHalfEven(x, digits).value : roundHalfEven(x, digits);
      if (how !== 'ceil' && how !== 'floor') throw new TemplateFault('method must be common, ceil or floor');
      return new Float(Math[how](x * 10 ** digits) / 10 ** digits);
    },
  ),
  safe: simple('safe', [], (value) => value),
  select: selecting(true, false),
  selectattr: selecting(true, true),
  slice: simple('slice', ['slices', ['fill_with', null]], slices),
  sort,
  string: simple('string', [], str),
  striptags: simple('striptags', [], (value) =>
    str(value)
      .replace(/<!--[^]*?-->|<[^>]*>/g, '')
      .split(/\s+/)
      .filter((word) => word !== '')
      .join(' ')
      .replace(
        /&(?:(amp|lt|gt|quot|apos|nbsp)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));/g,
        (whole, name?: string, decimal?: string, hex?: string) =>
          unescaped(whole, name, decimal === undefined ? parseInt(hex ?? '', 16) : Number(decimal)),
      ),
  ),
  sum,
  title: simple('title', [], (value) =>
    str(value)
      .split(/([-\s({[<]+)/u)
      .map((word) => {
        const [first = '', ...rest] = characters(word);
        return first.toUpperCase() + rest.join('').toLowerCase();
      })
      .join(''),
  ),
  tojson,
  trim: (value, args) => methodOf(str(value), 'strip')!.call(args),
  truncate: simple(
    'truncate',
    [
      ['length', 255],
      ['killwords', false],
      ['end', '...'],
      ['leeway', null],
    ],
    truncated,
  ),
  unique,
  upper: method('upper'),
  urlencode: simple('urlencode', [], (value) => {
    const quote = (text: string): string =>
      encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
    // of pairs a query, in which a space is a plus
    const part = (item: Value): string => quote(str(item)).replaceAll('%20', '+');
    if (typeof value !== 'string' && (value instanceof Map || Array.isArray(value))) {
      const pairs = value instanceof Map ? [...value] : value.map((pair) => iterate(pair));
      return pairs.map(([key, item]) => `${part(key!)}=${part(item!)}`).join('&');
    }
    return quote(str(value)).replaceAll('%2F', '/');
  }),
  urlize: () => {
    throw new TemplateFault("the filter 'urlize' makes links of HTML, which no prompt has: it is not supported");
  },
  wordcount: simple('wordcount', [], (value) => (str(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length),
  wordwrap: simple(
    'wordwrap',
    [
      ['width', 79],
      ['break_long_words', true],
      ['wrapstring', null],
      ['break_on_hyphens', true],
    ],
    (value, [width, long, end, hyphens]) =>
      wrapped(
        str(value),
        integerOf('the width', width!),
        truth(long!),
        truth(hyphens!),
        end === null ? '\n' : str(end!),
      ),
  ),
  xmlattr: simple('xmlattr', [['autospace', true]], (value, [space]) => attributes(value, truth(space!))),
};

/** The filter's result. @throws TemplateFault for an unknown filter, by name */
export function applyFilter(host: FilterHost, name: string, value: Value, args: Arguments = NOTHING): Value {
  if (!Object.hasOwn(FILTERS, name)) throw new TemplateFault(`No filter named '${name}'.`);
  return FILTERS[name]!(value, args, host);
}
