/**
 * A template cut into text and the tokens of its tags, as Jinja's lexer.py does with trim_blocks and lstrip_blocks, which
 * transformers sets. Its time grows with the length of the template.
 */
import { TemplateFault } from './fault.js';
import { quote } from '../../base/quote.js';

export type TokenType =
  | 'text'
  | 'begin block'
  | 'end block'
  | 'begin output'
  | 'end output'
  | 'name'
  | 'string'
  | 'integer'
  | 'float'
  | 'operator'
  | 'end';

export interface Token {
  readonly type: TokenType;
  readonly value: string;
  /** Line of the template, from 1. */
  readonly line: number;
}

const OPERATORS = ['**', '//', '==', '!=', '>=', '<=', ...'+-/*%~[](){}<>=.:|,;'];
const CLOSING: Readonly<Record<string, string>> = { ')': '(', ']': '[', '}': '{' };
/** Deepest nesting of brackets. */
const MOST_NESTED = 200;

const NUMBER =
  /(?:0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[0-9a-fA-F])+|(?:\d(?:_?\d)*)(?:\.\d(?:_?\d)*)?(?:[eE][-+]?\d(?:_?\d)*)?)/y;
const NAME = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy;
const SPACE = /\s+/y;
const STRING = /'(?:[^'\\]|\\[^])*'|"(?:[^"\\]|\\[^])*"/y;
const ESCAPES: Readonly<Record<string, string>> = {
  ...{ n: '\n', t: '\t', r: '\r', b: '\b', f: '\f', v: '\v', a: '\x07' },
  ...{ '\\': '\\', "'": "'", '"': '"', '\n': '' },
};

/** What a text in quotes means: Python's escapes, of which unknown ones stay as they are. */
function unescape(text: string, fail: (why: string) => never): string {
  return text.replace(/\\(x.{0,2}|u.{0,4}|U.{0,8}|[0-7]{1,3}|[^])/gs, (all, code: string) => {
    const kind = code[0]!;
    if (kind === 'x' || kind === 'u' || kind === 'U') {
      const digits = code.slice(1);
      const wanted = { x: 2, u: 4, U: 8 }[kind];
      const point = Number.parseInt(digits, 16);
      if (!new RegExp(`^[0-9a-fA-F]{${wanted}}$`).test(digits) || point > 0x10ffff)
        return fail(`a wrong escape '${all}'`);
      return kind === 'u' ? String.fromCharCode(point) : String.fromCodePoint(point);
    }
    if (/^[0-7]/.test(code)) return String.fromCharCode(Number.parseInt(code, 8));
    if (kind === 'N') return fail(`a character by its name '${all}'`);
    return ESCAPES[code] ?? all;
  });
}

class Lexer {
  private readonly tokens: Token[] = [];
  private at = 0;
  private line = 1;

  constructor(private readonly source: string) {}

  private fail(why: string): never {
    throw new TemplateFault(`${why} (line ${this.line})`);
  }

  private push(type: TokenType, value: string): void {
    this.tokens.push({ type, value, line: this.line });
  }

  /** Moves on, counting lines. */
  private moveTo(end: number): void {
    for (let i = this.at; i < end; i++) if (this.source.charCodeAt(i) === 10) this.line++;
    this.at = end;
  }

  private match(pattern: RegExp): string | null {
    pattern.lastIndex = this.at;
    return pattern.exec(this.source)?.[0] ?? null;
  }

  run(): Token[] {
    while (this.at < this.source.length) this.tag(this.text());
    this.push('end', '');
    return this.tokens;
  }

  /** Pushes the text up to the next tag; returns where that begins. */
  private text(): number {
    const { source } = this;
    let begin = source.indexOf('{', this.at);
    while (begin >= 0 && !'%{#'.includes(source[begin + 1] ?? ' ')) begin = source.indexOf('{', begin + 1);
    const end = begin < 0 ? source.length : begin;
    const sign = begin < 0 ? '' : source[begin + 2]!;
    let text = source.slice(this.at, end);
    if (sign === '-') text = text.trimEnd();
    else if (begin >= 0 && sign !== '+' && source[begin + 1] !== '{') text = this.withoutIndent(text);
    if (text !== '') this.push('text', text);
    this.moveTo(end);
    return begin;
  }

  /** lstrip_blocks: spaces before a tag go where there is nothing else on its line. */
  private withoutIndent(text: string): string {
    let end = text.length;
    while (end > 0 && /[^\S\n]/.test(text[end - 1]!)) end--;
    const first = end === 0 && (this.at === 0 || this.source[this.at - 1] === '\n');
    return first || text[end - 1] === '\n' ? text.slice(0, end) : text;
  }

  private tag(begin: number): void {
    if (begin < 0) return;
    const kind = this.source[begin + 1]!;
    const signed = '-+'.includes(this.source[begin + 2] ?? ' ');
    if (kind === '#') return this.comment(begin);
    this.moveTo(begin + (signed ? 3 : 2));
    if (kind === '%' && this.raw()) return;
    this.push(kind === '%' ? 'begin block' : 'begin output', '');
    this.inside(kind === '%' ? '%}' : '}}');
  }

  private comment(begin: number): void {
    const end = this.source.indexOf('#}', begin + 2);
    if (end < 0) this.fail('Missing end of comment tag');
    this.moveTo(end + 2);
    this.after(this.source[end - 1]!, true);
  }

  /** What a sign before the end of a tag, or the end of a block, takes off the text behind it. */
  private after(sign: string, block: boolean): void {
    if (sign === '-') this.moveTo(this.at + (this.match(SPACE)?.length ?? 0));
    else if (block && sign !== '+' && this.source[this.at] === '\n') this.moveTo(this.at + 1);
  }

  /** {% raw %} … {% endraw %}: text as it is. */
  private raw(): boolean {
    const open = this.match(/\s*raw\s*([-+]?)%\}/y);
    if (open === null) return false;
    this.moveTo(this.at + open.length);
    this.after(open.at(-3)!, true);
    const close = /\{%([-+]?)\s*endraw\s*([-+]?)%\}/g;
    close.lastIndex = this.at;
    const found = close.exec(this.source);
    if (!found) this.fail('Missing end of raw directive');
    let text = this.source.slice(this.at, found.index);
    if (found[1] === '-') text = text.trimEnd();
    else if (found[1] !== '+') text = this.withoutIndent(text);
    if (text !== '') this.push('text', text);
    this.moveTo(found.index + found[0].length);
    this.after(found[2]!, true);
    return true;
  }

  /** The tokens of a tag up to its end. */
  private inside(end: '%}' | '}}'): void {
    const open: string[] = [];
    for (;;) {
      const space = this.match(SPACE);
      if (space !== null) this.moveTo(this.at + space.length);
      if (this.at >= this.source.length) this.fail(`unexpected end of template: expected '${end}'`);
      if (open.length === 0) {
        const mark = this.source[this.at]!;
        const signed = (mark === '-' || (mark === '+' && end === '%}')) && this.source.startsWith(end, this.at + 1);
        const sign = signed ? mark : '';
        if (sign !== '' || this.source.startsWith(end, this.at)) {
          this.push(end === '%}' ? 'end block' : 'end output', end);
          this.moveTo(this.at + sign.length + 2);
          return this.after(sign, end === '%}');
        }
      }
      this.token(open);
    }
  }

  private token(open: string[]): void {
    const number = /\d/.test(this.source[this.at]!) ? this.match(NUMBER) : null;
    if (number !== null) {
      const float = !/^0[xXbBoO]/.test(number) && /[.eE]/.test(number);
      this.push(float ? 'float' : 'integer', number.replaceAll('_', ''));
      return this.moveTo(this.at + number.length);
    }
    const name = this.match(NAME);
    if (name !== null) {
      this.push('name', name);
      return this.moveTo(this.at + name.length);
    }
    if (this.source[this.at] === "'" || this.source[this.at] === '"') {
      const text = this.match(STRING);
      if (text === null) this.fail('unexpected end of a text in quotes');
      this.push(
        'string',
        unescape(text.slice(1, -1), (why) => this.fail(why)),
      );
      return this.moveTo(this.at + text.length);
    }
    const operator = OPERATORS.find((text) => this.source.startsWith(text, this.at));
    if (operator === undefined) this.fail(`unexpected char ${quote(this.source[this.at])}`);
    if ('([{'.includes(operator)) open.push(operator);
    if (open.length > MOST_NESTED) this.fail(`brackets are nested deeper than ${MOST_NESTED} levels`);
    if (Object.hasOwn(CLOSING, operator) && open.pop() !== CLOSING[operator]) this.fail(`unexpected '${operator}'`);
    this.push('operator', operator);
    this.moveTo(this.at + operator.length);
  }
}

/** @throws TemplateFault naming the line for what is no template */
export function tokenize(source: string): Token[] {
  const lines = source.replace(/\r\n|\r/g, '\n');
  return new Lexer(lines.endsWith('\n') ? lines.slice(0, -1) : lines).run();
}
