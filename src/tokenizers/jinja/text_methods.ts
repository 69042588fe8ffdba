/** Methods of Python's texts. */
import { integerOf, type Parameter, textOf } from './arguments.js';
import { TemplateFault } from './fault.js';
import { characters, isPrintable, iterate, numberOf, str, Tuple, type Value } from './values.js';

/** A method of a value: its parameters, and what it makes of their values. */
export type Method<T> = readonly [parameters: readonly Parameter[], run: (own: T, args: Value[]) => Value];

/** What Python's str.isspace() takes, as a class of characters: JavaScript's white space, but for U+FEFF, and four separators. */
const SPACES = '(?!\\ufeff)[\\s\\u001c-\\u001f\\u0085]';
const SPACE = new RegExp(SPACES);
const SPACE_START = new RegExp(`^(?:${SPACES})+`);
/** Where a line ends, as a pattern. */
export const LINE_END = '(?:\\r\\n|[\\r\\n\\v\\f\\u001c-\\u001e\\u0085\\u2028\\u2029])';
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

/** Letters of two whose capital at the beginning of a word is another than within one. */
const TITLES: Readonly<Record<string, string>> = { Ǆ: 'ǅ', Ǉ: 'ǈ', Ǌ: 'ǋ', Ǳ: 'ǲ' };

/** The capital that begins a word: of several letters the first alone. */
function titleCase(first: string): string {
  const [capital = '', ...rest] = characters(first.toUpperCase());
  if (capital.toLowerCase() === capital) return capital + rest.join(''); // an apostrophe before its letter
  return (TITLES[capital] ?? capital) + rest.join('').toLowerCase();
}

export function capitalize(text: string): string {
  const [first = ''] = characters(text);
  // lower case goes by what stands around a letter: a sigma at the end of a word is another
  return titleCase(first) + text.toLowerCase().slice(first.toLowerCase().length);
}

export function replace(own: string, old: string, fresh: string, count: number): string {
  if (old === '') {
    // before each character and at the end
    const places = [...characters(own), ''];
    return places.map((c, i) => (count < 0 || i < count ? fresh + c : c)).join('');
  }
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

/** The part of a text from a place to another, counted as Python counts them; null where the first lies behind the end. */
function range(own: string, start: Value, end: Value): { part: string; from: number } | null {
  if (start === null && end === null) return { part: own, from: 0 };
  const list = characters(own);
  const at = (value: Value, otherwise: number): number => {
    if (value === null) return otherwise;
    const place = integerOf('a place in a text', value);
    return place < 0 ? Math.max(0, place + list.length) : place;
  };
  const [from, to] = [at(start, 0), Math.min(at(end, list.length), list.length)];
  return from > list.length || from > to ? null : { part: list.slice(from, to).join(''), from };
}

const PLACES = [
  ['start', null],
  ['end', null],
] as const;

const affix =
  (test: (own: string, text: string) => boolean, name: string) =>
  (own: string, [what, start, end]: Value[]): Value => {
    const within = range(own, start!, end!);
    const texts = (what instanceof Tuple ? what.items : [what!]).map((text) => textOf(`${name}()`, text));
    return within !== null && texts.some((text) => test(within.part, text));
  };

const every =
  (pattern: RegExp) =>
  (own: string): Value =>
    own !== '' && characters(own).every((c) => pattern.test(c));

const cased =
  (wanted: (text: string) => string) =>
  (own: string): Value =>
    own === wanted(own) && own.toUpperCase() !== own.toLowerCase();

function indexIn(own: string, [text, start, end]: Value[], last: boolean): number {
  const within = range(own, start!, end!);
  if (within === null) return -1;
  const { part, from } = within;
  const at = last ? part.lastIndexOf(textOf('find()', text!)) : part.indexOf(textOf('find()', text!));
  return at < 0 ? -1 : from + characters(part.slice(0, at)).length;
}

function countIn(own: string, [text, start, end]: Value[]): number {
  const within = range(own, start!, end!);
  const what = textOf('count()', text!);
  if (within === null) return 0;
  return what === '' ? characters(within.part).length + 1 : within.part.split(what).length - 1;
}

function expandTabs(own: string, size: number): string {
  let column = 0;
  let out = '';
  for (const c of own) {
    const room = c === '\t' ? (size > 0 ? size - (column % size) : 0) : 1;
    out += c === '\t' ? ' '.repeat(room) : c;
    column = c === '\n' || c === '\r' ? 0 : column + room;
  }
  return out;
}

/** Whether each word begins with a capital and goes on without one. */
function isTitle(own: string): boolean {
  let [inWord, any] = [false, false];
  for (const c of own) {
    const upper = /[\p{Uppercase}\p{Lt}]/u.test(c);
    const lower = /\p{Lowercase}/u.test(c);
    if ((upper && inWord) || (lower && !inWord)) return false;
    inWord = upper || lower;
    any ||= inWord;
  }
  return any;
}

/** What str.maketrans() gives: numbers of characters, and what they become. */
function translation(_own: string, [from, to, gone]: Value[]): Value {
  const code = (text: string): number => text.codePointAt(0)!;
  if (from instanceof Map && to === null)
    return new Map([...from].map(([key, value]) => [typeof key === 'string' ? code(key) : key, value]));
  const [old, fresh] = [characters(textOf('maketrans()', from!)), characters(textOf('maketrans()', to!))];
  if (old.length !== fresh.length) throw new TemplateFault('the first two maketrans arguments must have equal length');
  const drops = gone === null ? [] : characters(textOf('maketrans()', gone!));
  return new Map<Value, Value>([
    ...old.map((c, i) => [code(c), code(fresh[i]!)] as const),
    ...drops.map((c) => [code(c), null] as const),
  ]);
}

function translate(own: string, table: Value): string {
  if (!(table instanceof Map)) throw new TemplateFault('translate() expects a dictionary of numbers of characters');
  const of = (c: string): string => {
    const to = table.get(c.codePointAt(0)!);
    if (to === undefined) return c;
    return to === null ? '' : typeof to === 'number' ? String.fromCodePoint(to) : str(to);
  };
  return characters(own).map(of).join('');
}

export function found(at: number): number {
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

export const TEXT_METHODS: Readonly<Record<string, Method<string>>> = {
  upper: [[], (own) => own.toUpperCase()],
  lower: [[], (own) => own.toLowerCase()],
  casefold: [[], (own) => own.toUpperCase().toLowerCase().replaceAll('ς', 'σ')],
  title: [[], title],
  capitalize: [[], capitalize],
  swapcase: [
    [],
    (own) =>
      characters(own)
        .map((c, i, all) => {
          if (c !== c.toUpperCase()) return c.toUpperCase();
          // a sigma at the end of a word is another
          return c === 'Σ'
            ? all
                .slice(0, i + 2)
                .join('')
                .toLowerCase()
                .slice(i, i + 1)
            : c.toLowerCase();
        })
        .join(''),
  ],
  strip: [[['chars', null]], (own, [chars]) => strip(own, chars!, 'both')],
  lstrip: [[['chars', null]], (own, [chars]) => strip(own, chars!, 'left')],
  rstrip: [[['chars', null]], (own, [chars]) => strip(own, chars!, 'right')],
  startswith: [['prefix', ...PLACES], affix((own, text) => own.startsWith(text), 'startswith')],
  endswith: [['suffix', ...PLACES], affix((own, text) => own.endsWith(text), 'endswith')],
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
  find: [['sub', ...PLACES], (own, args) => indexIn(own, args, false)],
  rfind: [['sub', ...PLACES], (own, args) => indexIn(own, args, true)],
  index: [['sub', ...PLACES], (own, args) => found(indexIn(own, args, false))],
  rindex: [['sub', ...PLACES], (own, args) => found(indexIn(own, args, true))],
  count: [['sub', ...PLACES], countIn],
  expandtabs: [[['tabsize', 8]], (own, [size]) => expandTabs(own, integerOf('tabsize', size!))],
  maketrans: [['x', ['y', null], ['z', null]], translation],
  translate: [['table'], (own, [table]) => translate(own, table!)],
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
  zfill: [
    ['width'],
    (own, [width]) => {
      const sign = /^[-+]/.exec(own)?.[0] ?? '';
      return sign + just(own.slice(sign.length), (numberOf(width!) ?? 0) - sign.length, '0', (room) => room);
    },
  ],
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
  isascii: [[], (own) => characters(own).every((c) => c.codePointAt(0)! < 128)],
  isidentifier: [[], (own) => /^[\p{XID_Start}_]\p{XID_Continue}*$/u.test(own)],
  isprintable: [[], (own) => characters(own).every(isPrintable)],
  istitle: [[], isTitle],
  isupper: [[], cased((text) => text.toUpperCase())],
  islower: [[], cased((text) => text.toLowerCase())],
};
