/** Methods of Python's texts, lists and dictionaries that templates call; those that change a value are refused, as in transformers' sandbox. */
import { bind, integerOf, type Parameter, textOf } from './arguments.js';
import { TemplateFault } from './fault.js';
import { formatBraces } from './format.js';
import { type Arguments, Callable, characters, equal, iterate, str, Tuple, typeName, type Value } from './values.js';

type Method<T> = readonly [parameters: readonly Parameter[], run: (own: T, args: Value[]) => Value];

/** What Python's str.isspace() takes, as a class of characters: JavaScript's white space, but for U+FEFF, and four separators. */
const SPACES = '(?!\\ufeff)[\\s\\u001c-\\u001f\\u0085]';
const SPACE = new RegExp(SPACES);
const SPACE_START = new RegExp(`^(?:${SPACES})+`);
const LINE_END = '(?:\\r\\n|[\\r\\n\\v\\f\\u001c-\\u001e\\u0085\\u2028\\u2029])';
const LINE = new RegExp(`(?:(?!${LINE_END})[^])*(?:${LINE_END}|$)`, 'g');
const LAST_LINE_END = new RegExp(`${LINE_END}$`);

function strip(own: string, chars: Value, side: 'left' | 'right' | 'both'): string {
  if (chars === null) {
    const left = side === 'right' ? own : own.replace(SPACE_START, '');
    if (side === 'left') return left;
    let end = left.length;
    while (end > 0 && SPACE.test(left[end - 1]!)) end--;
    return left.slice(0, end);
  }
  const set = new Set(characters(textOf('strip()', chars)));
  const list = characters(own);
  let [from, to] = [0, list.length];
  if (side !== 'right') while (from < to && set.has(list[from]!)) from++;
  if (side !== 'left') while (to > from && set.has(list[to - 1]!)) to--;
  return list.slice(from, to).join('');
}

function split(own: string, separator: Value, most: number): string[] {
  if (separator === null) {
    const out: string[] = [];
    let rest = strip(own, null, 'left');
    while (rest !== '') {
      const space = most < 0 || out.length < most ? SPACE.exec(rest) : null;
      if (!space) {
        out.push(rest);
        break;
      }
      out.push(rest.slice(0, space.index));
      rest = strip(rest.slice(space.index), null, 'left');
    }
    return out;
  }
  const by = textOf('split()', separator);
  if (by === '') throw new TemplateFault('empty separator');
  const parts = own.split(by);
  return most < 0 || parts.length <= most + 1 ? parts : [...parts.slice(0, most), parts.slice(most).join(by)];
}

function splitFromRight(own: string, separator: Value, most: number): string[] {
  if (most < 0) return split(own, separator, -1);
  const back = (text: string): string => characters(text).reverse().join('');
  const by = separator === null ? null : back(textOf('rsplit()', separator));
  return split(back(own), by, most).map(back).reverse();
}

/** Python's title(): a capital after everything that is no letter. */
function title(text: string): string {
  return text.replace(/\p{L}+/gu, (word) => capitalize(word));
}

export function capitalize(text: string): string {
  const [first = '', ...rest] = characters(text);
  return first.toUpperCase() + rest.join('').toLowerCase();
}

export function replace(own: string, old: string, fresh: string, count: number): string {
  if (count < 0) return own.replaceAll(old, () => fresh);
  let [out, rest] = ['', own];
  for (let i = 0; i < count; i++) {
    const at = rest.indexOf(old);
    if (at < 0) break;
    out += rest.slice(0, at) + fresh;
    rest = rest.slice(at + old.length);
  }
  return out + rest;
}

const affix =
  (test: (own: string, text: string) => boolean, name: string) =>
  (own: string, [what]: Value[]): Value =>
    (what instanceof Tuple ? what.items : [what!]).some((text) => test(own, textOf(`${name}()`, text)));

const every =
  (pattern: RegExp) =>
  (own: string): Value =>
    own !== '' && characters(own).every((c) => pattern.test(c));

const cased =
  (wanted: (text: string) => string) =>
  (own: string): Value =>
    own === wanted(own) && own.toUpperCase() !== own.toLowerCase();

function indexIn(own: string, text: Value, last: boolean): number {
  const at = last ? own.lastIndexOf(textOf('find()', text)) : own.indexOf(textOf('find()', text));
  return at < 0 ? -1 : characters(own.slice(0, at)).length;
}

function found(at: number): number {
  if (at < 0) throw new TemplateFault('substring not found');
  return at;
}

function just(own: string, width: Value, fill: Value, left: (room: number) => number): string {
  const room = Math.max(0, integerOf('the width', width) - characters(own).length);
  const [before, pad] = [left(room), textOf('the filling', fill)];
  return pad.repeat(before) + own + pad.repeat(room - before);
}

function partition(own: string, separator: string, last: boolean): Tuple {
  const at = last ? own.lastIndexOf(separator) : own.indexOf(separator);
  if (at < 0) return new Tuple(last ? ['', '', own] : [own, '', '']);
  return new Tuple([own.slice(0, at), separator, own.slice(at + separator.length)]);
}

const TEXT: Readonly<Record<string, Method<string>>> = {
  upper: [[], (own) => own.toUpperCase()],
  lower: [[], (own) => own.toLowerCase()],
  casefold: [[], (own) => own.toLowerCase()],
  title: [[], title],
  capitalize: [[], capitalize],
  swapcase: [
    [],
    (own) =>
      characters(own)
        .map((c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase()))
        .join(''),
  ],
  strip: [[['chars', null]], (own, [chars]) => strip(own, chars!, 'both')],
  lstrip: [[['chars', null]], (own, [chars]) => strip(own, chars!, 'left')],
  rstrip: [[['chars', null]], (own, [chars]) => strip(own, chars!, 'right')],
  startswith: [['prefix'], affix((own, text) => own.startsWith(text), 'startswith')],
  endswith: [['suffix'], affix((own, text) => own.endsWith(text), 'endswith')],
  split: [
    [
      ['sep', null],
      ['maxsplit', -1],
    ],
    (own, [by, most]) => split(own, by!, integerOf('maxsplit', most!)),
  ],
  rsplit: [
    [
      ['sep', null],
      ['maxsplit', -1],
    ],
    (own, [by, most]) => splitFromRight(own, by!, integerOf('maxsplit', most!)),
  ],
  splitlines: [
    [['keepends', false]],
    (own, [keep]) =>
      (own.match(LINE) ?? [])
        .filter((line) => line !== '')
        .map((line) => (keep === true ? line : line.replace(LAST_LINE_END, ''))),
  ],
  replace: [
    ['old', 'new', ['count', -1]],
    (own, [old, fresh, count]) =>
      replace(own, textOf('replace()', old!), textOf('replace()', fresh!), integerOf('count', count!)),
  ],
  find: [['sub'], (own, [text]) => indexIn(own, text!, false)],
  rfind: [['sub'], (own, [text]) => indexIn(own, text!, true)],
  index: [['sub'], (own, [text]) => found(indexIn(own, text!, false))],
  rindex: [['sub'], (own, [text]) => found(indexIn(own, text!, true))],
  count: [['sub'], (own, [text]) => own.split(textOf('count()', text!)).length - 1],
  join: [
    ['iterable'],
    (own, [list]) =>
      iterate(list!)
        .map((item) => textOf('join()', item))
        .join(own),
  ],
  removeprefix: [['prefix'], (own, [text]) => (own.startsWith(str(text!)) ? own.slice(str(text!).length) : own)],
  removesuffix: [
    ['suffix'],
    (own, [text]) => (str(text!) !== '' && own.endsWith(str(text!)) ? own.slice(0, -str(text!).length) : own),
  ],
  partition: [['sep'], (own, [by]) => partition(own, textOf('partition()', by!), false)],
  rpartition: [['sep'], (own, [by]) => partition(own, textOf('rpartition()', by!), true)],
  zfill: [['width'], (own, [width]) => just(own, width!, '0', (room) => room)],
  rjust: [['width', ['fillchar', ' ']], (own, [width, fill]) => just(own, width!, fill!, (room) => room)],
  ljust: [['width', ['fillchar', ' ']], (own, [width, fill]) => just(own, width!, fill!, () => 0)],
  center: [
    ['width', ['fillchar', ' ']],
    (own, [width, fill]) =>
      just(own, width!, fill!, (room) => (room >> 1) + (room & integerOf('the width', width!) & 1)),
  ],
  isdigit: [[], every(/[\p{Nd}²³¹⁰-⁹₀-₉]/u)],
  isnumeric: [[], every(/\p{N}/u)],
  isdecimal: [[], every(/\p{Nd}/u)],
  isalpha: [[], every(/\p{L}/u)],
  isalnum: [[], every(/[\p{L}\p{N}]/u)],
  isspace: [[], every(SPACE)],
  isupper: [[], cased((text) => text.toUpperCase())],
  islower: [[], cased((text) => text.toLowerCase())],
};

const LIST: Readonly<Record<string, Method<readonly Value[]>>> = {
  count: [['value'], (own, [value]) => own.filter((item) => equal(item, value!)).length],
  index: [['value'], (own, [value]) => found(own.findIndex((item) => equal(item, value!)))],
  copy: [[], (own) => [...own]],
};

const DICT: Readonly<Record<string, Method<Map<Value, Value>>>> = {
  get: [
    ['key', ['default', null]],
    (own, [key, otherwise]) => {
      const found = own.get(key!);
      return found === undefined ? otherwise! : found;
    },
  ],
  keys: [[], (own) => [...own.keys()]],
  values: [[], (own) => [...own.values()]],
  items: [[], (own) => [...own].map((entry) => new Tuple(entry))],
  copy: [[], (own) => new Map(own)],
};

/** Methods that change their value: the sandbox of transformers refuses them. */
const CHANGING = new Set([
  ...['append', 'extend', 'insert', 'pop', 'remove', 'clear', 'reverse', 'sort'],
  ...['update', 'setdefault', 'popitem', '__setitem__'],
]);

function bound<T>(methods: Readonly<Record<string, Method<T>>>, own: T, name: string): Callable | null {
  if (!Object.hasOwn(methods, name)) return null;
  const [parameters, run] = methods[name]!;
  return new Callable(name, (args: Arguments) => run(own, bind(name, args, parameters)));
}

/** The method of a value; null where it has none of that name. @throws TemplateFault for one that would change it */
export function methodOf(value: Value, name: string): Callable | null {
  if (typeof value === 'string' && name === 'format') return new Callable(name, (args) => formatBraces(value, args));
  if (typeof value === 'string') return bound(TEXT, value, name);
  const list = value instanceof Tuple ? value.items : value;
  const container = Array.isArray(list) || value instanceof Map;
  if (container && CHANGING.has(name) && !(value instanceof Map && (name === 'sort' || name === 'reverse')))
    throw new TemplateFault(`access to attribute '${name}' of '${typeName(value)}' object is unsafe.`);
  if (value instanceof Map) return bound(DICT, value, name);
  return Array.isArray(list) ? bound(LIST, list as readonly Value[], name) : null;
}
