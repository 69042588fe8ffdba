/** Jinja's filters, as its filters.py has them. */
import { bind, integerOf, type Parameter, textOf } from './arguments.js';
import { TemplateFault } from './fault.js';
import { formatPercent, roundHalfEven } from './format.js';
import { json } from './json.js';
import { capitalize, methodOf, replace } from './methods.js';
import { binary } from './operators.js';
import {
  type Arguments,
  characters,
  compare,
  equal,
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

/** What filters need of the interpreter. */
export interface FilterHost {
  attribute(value: Value, name: Value): Value;
  test(name: string, value: Value, args: Arguments): boolean;
  filter(name: string, value: Value, args: Arguments): Value;
}

type Filter = (value: Value, args: Arguments, host: FilterHost) => Value;

const NOTHING: Arguments = { positional: [], named: new Map() };

function simple(name: string, parameters: readonly Parameter[], run: (value: Value, args: Value[]) => Value): Filter {
  return (value, args) => run(value, bind(name, args, parameters));
}

/** An attribute by a path such as 'function.name' or an index. */
function path(host: FilterHost, value: Value, name: Value): Value {
  if (typeof name !== 'string') return host.attribute(value, name);
  return name.split('.').reduce((at, part) => host.attribute(at, /^\d+$/.test(part) ? Number(part) : part), value);
}

/** What a list is sorted or compared by: an attribute, texts without regard to case unless asked for. */
function keyOf(host: FilterHost, attribute: Value, caseSensitive: Value): (value: Value) => Value {
  return (value) => {
    const own = attribute === null ? value : path(host, value, attribute);
    return typeof own === 'string' && !truth(caseSensitive) ? own.toLowerCase() : own;
  };
}

function sorted(items: Value[], key: (value: Value) => Value, reverse: boolean): Value[] {
  const keyed = items.map((item) => [key(item), item] as const);
  keyed.sort(([a], [b]) => (reverse ? compare(b, a) : compare(a, b)));
  return keyed.map(([, item]) => item);
}

function extreme(name: string, sign: 1 | -1): Filter {
  return (value, args, host) => {
    const [caseSensitive, attribute] = bind(name, args, [
      ['case_sensitive', false],
      ['attribute', null],
    ]);
    const items = iterate(value);
    if (items.length === 0) return new Undefined('No aggregated item, sequence was empty. It');
    const key = keyOf(host, attribute!, caseSensitive!);
    return items.reduce((best, item) => (sign * compare(key(item), key(best)) < 0 ? item : best));
  };
}

/** select, reject: by a test of the items; selectattr, rejectattr: by one of an attribute. */
function selecting(keep: boolean, byAttribute: boolean): Filter {
  return (value, { positional, named }, host) => {
    const [attribute, rest] = byAttribute ? [positional[0], positional.slice(1)] : [undefined, positional];
    if (byAttribute && attribute === undefined) throw new TemplateFault('Missing parameter for attribute name');
    const test = rest.length === 0 ? null : textOf('the name of a test', rest[0]!);
    return iterate(value).filter((item) => {
      const own = attribute === undefined ? item : path(host, item, attribute);
      const passes = test === null ? truth(own) : host.test(test, own, { positional: rest.slice(1), named });
      return passes === keep;
    });
  };
}

const map: Filter = (value, { positional, named }, host) => {
  const items = iterate(value);
  if (positional.length === 0 && named.has('attribute')) {
    const [attribute, otherwise] = [named.get('attribute')!, named.get('default')];
    return items.map((item) => {
      const own = path(host, item, attribute);
      return own instanceof Undefined && otherwise !== undefined ? otherwise : own;
    });
  }
  const [name, ...rest] = positional;
  if (name === undefined) throw new TemplateFault('map requires a filter argument');
  return items.map((item) => host.filter(textOf('map', name), item, { positional: rest, named }));
};

const join: Filter = (value, args, host) => {
  const [separator, attribute] = bind('join', args, [
    ['d', ''],
    ['attribute', null],
  ]);
  const items = iterate(value).map((item) => str(attribute === null ? item : path(host, item, attribute!)));
  return items.join(str(separator!));
};

const sort: Filter = (value, args, host) => {
  const [reverse, caseSensitive, attribute] = bind('sort', args, [
    ['reverse', false],
    ['case_sensitive', false],
    ['attribute', null],
  ]);
  const names = typeof attribute === 'string' ? attribute.split(',') : [attribute!];
  const keys = names.map((name) => keyOf(host, name, caseSensitive!));
  const key = keys.length === 1 ? keys[0]! : (item: Value): Value => keys.map((one) => one(item));
  return sorted(iterate(value), key, truth(reverse!));
};

const unique: Filter = (value, args, host) => {
  const [caseSensitive, attribute] = bind('unique', args, [
    ['case_sensitive', false],
    ['attribute', null],
  ]);
  const key = keyOf(host, attribute!, caseSensitive!);
  const seen: Value[] = [];
  return iterate(value).filter((item) => {
    const own = key(item);
    if (seen.some((other) => equal(other, own))) return false;
    seen.push(own);
    return true;
  });
};

const groupby: Filter = (value, args, host) => {
  const [attribute, otherwise, caseSensitive] = bind('groupby', args, [
    'attribute',
    ['default', null],
    ['case_sensitive', false],
  ]);
  const raw = (item: Value): Value => {
    const own = path(host, item, attribute!);
    return own instanceof Undefined && otherwise !== null ? otherwise! : own;
  };
  const key = (item: Value): Value => {
    const own = raw(item);
    return typeof own === 'string' && !truth(caseSensitive!) ? own.toLowerCase() : own;
  };
  const groups: [Value, Value[]][] = [];
  for (const item of sorted(iterate(value), key, false)) {
    const last = groups.at(-1);
    if (last && equal(key(last[1][0]!), key(item))) last[1].push(item);
    else groups.push([raw(item), [item]]);
  }
  return groups.map(([name, items]) => new Tuple([name, items]));
};

const dictsort: Filter = (value, args) => {
  const [caseSensitive, by, reverse] = bind('dictsort', args, [
    ['case_sensitive', false],
    ['by', 'key'],
    ['reverse', false],
  ]);
  if (!(value instanceof Map)) throw new TemplateFault(`dictsort expects a dictionary, not ${typeName(value)}`);
  const at = by === 'value' ? 1 : 0;
  const key = (entry: Value): Value => {
    const own = (entry as Tuple).items[at]!;
    return typeof own === 'string' && !truth(caseSensitive!) ? own.toLowerCase() : own;
  };
  return sorted(
    [...value].map((entry) => new Tuple(entry)),
    key,
    truth(reverse!),
  );
};

const sum: Filter = (value, args, host) => {
  const [attribute, start] = bind('sum', args, [
    ['attribute', null],
    ['start', 0],
  ]);
  return iterate(value).reduce((all, item) => {
    return binary('+', all, attribute === null ? item : path(host, item, attribute!));
  }, start!);
};

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

function toInteger(value: Value, otherwise: Value, base: number): Value {
  if (typeof value === 'string') {
    const text = value.trim().replace(/(?<=\d)_(?=\d)/g, '');
    if (base === 10 && /^[-+]?\d+$/.test(text)) return Number.parseInt(text, 10);
    if (base !== 10 && /^[-+]?(0[xob])?[0-9a-f]+$/i.test(text))
      return Number.parseInt(text.replace(/0[xob]/i, ''), base);
    const float = toFloat(value, null);
    return float instanceof Float && Number.isFinite(float.value) ? Math.trunc(float.value) : otherwise;
  }
  const x = numberOf(value);
  return x === null || !Number.isFinite(x) ? otherwise : Math.trunc(x);
}

function toFloat(value: Value, otherwise: Value): Value {
  if (typeof value === 'string') {
    const text = value
      .trim()
      .replace(/(?<=\d)_(?=\d)/g, '')
      .toLowerCase();
    if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/.test(text)) return new Float(Number(text));
    if (/^[-+]?inf(inity)?$/.test(text)) return new Float(text.startsWith('-') ? -Infinity : Infinity);
    return text === 'nan' ? new Float(NaN) : otherwise;
  }
  const x = numberOf(value);
  return x === null ? otherwise : new Float(x);
}

const escape = (value: Value): Value =>
  str(value).replace(/[&<>'"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' })[c]!);

function indented(value: Value, [width, first, blank]: Value[]): string {
  const by = typeof width === 'string' ? width : ' '.repeat(integerOf('the width', width!));
  const lines = `${str(value)}\n`.split('\n').slice(0, -1);
  const rest = lines.slice(1).map((line) => (line === '' && !truth(blank!) ? line : by + line));
  return [truth(first!) ? by + lines[0]! : lines[0]!, ...rest].join('\n');
}

function truncated(value: Value, [length, kill, end, leeway]: Value[]): string {
  const [text, most, tail] = [characters(str(value)), integerOf('the length', length!), str(end!)];
  const slack = leeway === null ? 5 : integerOf('leeway', leeway!);
  if (text.length <= most + slack) return text.join('');
  const cut = text.slice(0, most - characters(tail).length).join('');
  if (truth(kill!)) return cut + tail;
  const space = cut.lastIndexOf(' ');
  return (space < 0 ? cut : cut.slice(0, space)) + tail;
}

/** Cuts a list into lists of `size`; the last is filled where asked for. */
function batches(value: Value, [size, fill]: Value[]): Value[] {
  const [items, count] = [iterate(value), integerOf('batch', size!)];
  if (count < 1) throw new TemplateFault('batch expects a positive number');
  const out: Value[][] = [];
  for (let i = 0; i < items.length; i += count) out.push(items.slice(i, i + count));
  const last = out.at(-1);
  if (last && fill !== null) while (last.length < count) last.push(fill!);
  return out;
}

/** Cuts a list into `count` lists of about equal length. */
function slices(value: Value, [count, fill]: Value[]): Value[] {
  const [items, n] = [iterate(value), integerOf('slice', count!)];
  if (n < 1) throw new TemplateFault('slice expects a positive number');
  const [each, longer] = [Math.floor(items.length / n), items.length % n];
  let at = 0;
  return Array.from({ length: Math.min(n, 100_000) }, (_, i) => {
    const part = items.slice(at, (at += each + (i < longer ? 1 : 0)));
    return fill !== null && i >= longer && longer > 0 ? [...part, fill!] : part;
  });
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
      .join(' '),
  ),
  sum,
  title: simple('title', [], (value) =>
    str(value)
      .split(/([-\s({[<]+)/u)
      .map((word) => capitalize(word))
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
    if (value instanceof Map)
      return [...value].map(([key, item]) => `${quote(str(key))}=${quote(str(item))}`).join('&');
    return quote(str(value)).replaceAll('%2F', '/');
  }),
  wordcount: simple('wordcount', [], (value) => (str(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length),
};

/** The filter's result. @throws TemplateFault for an unknown filter, by name */
export function applyFilter(host: FilterHost, name: string, value: Value, args: Arguments = NOTHING): Value {
  if (!Object.hasOwn(FILTERS, name)) throw new TemplateFault(`No filter named '${name}'.`);
  return FILTERS[name]!(value, args, host);
}
