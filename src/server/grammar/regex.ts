/** The regular part of ECMAScript's expressions (with the flag `u`, as JSON schema has them) as a tree. */
import { ALL, type CodePoints, complement, union, WIDE_SPACES } from './code_points.js';

export type RegexNode =
  | { kind: 'set'; set: CodePoints }
  | { kind: 'sequence' | 'choice'; parts: RegexNode[] }
  | { kind: 'repeat'; body: RegexNode; min: number; max: number }
  | { kind: 'begin' | 'end' };

/** An expression that is none, or asks for what no automaton has. The message goes on from 'it'. */
export class RegexFault extends Error {
  constructor(
    message: string,
    readonly invalid = false,
  ) {
    super(message);
  }
}

/** Longest expression, and deepest nesting of it. */
const LONGEST = 1000;
const DEEPEST = 50;

const DIGITS: CodePoints = [[0x30, 0x39]];
const WORD: CodePoints = union(DIGITS, [[0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]]); // prettier-ignore
const LINE_ENDS: CodePoints = [[0x0a, 0x0a], [0x0d, 0x0d], [0x2028, 0x2029]]; // prettier-ignore
const SPACES: CodePoints = union([[0x09, 0x0d], [0x20, 0x20]], WIDE_SPACES); // prettier-ignore
const CLASSES: Readonly<Record<string, CodePoints>> = {
  d: DIGITS,
  D: complement(DIGITS),
  w: WORD,
  W: complement(WORD),
  s: SPACES,
  S: complement(SPACES),
};
const CONTROLS: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, 0: 0 };

/** @throws RegexFault */
export function parseRegex(pattern: string): RegexNode {
  if (pattern.length > LONGEST) throw new RegexFault(`is longer than ${LONGEST} characters`);
  try {
    new RegExp(pattern, 'u');
  } catch (error) {
    throw new RegexFault(`is no regular expression: ${(error as Error).message.slice(0, 200)}`, true);
  }
  return new Parser(Array.from(pattern)).parse();
}

/** Of an expression that JavaScript has read: what is left to find is what it means. */
class Parser {
  private at = 0;
  private depth = 0;

  constructor(private readonly text: readonly string[]) {}

  parse(): RegexNode {
    return this.choice();
  }

  private take(text: string): boolean {
    const found = this.text.slice(this.at, this.at + text.length).join('') === text;
    if (found) this.at += text.length;
    return found;
  }

  private choice(): RegexNode {
    if (++this.depth > DEEPEST) throw new RegexFault(`is nested deeper than ${DEEPEST}`);
    const parts = [this.sequence()];
    while (this.take('|')) parts.push(this.sequence());
    this.depth--;
    return parts.length === 1 ? parts[0]! : { kind: 'choice', parts };
  }

  private sequence(): RegexNode {
    const parts: RegexNode[] = [];
    while (this.at < this.text.length && this.text[this.at] !== '|' && this.text[this.at] !== ')')
      parts.push(this.repeated());
    return parts.length === 1 ? parts[0]! : { kind: 'sequence', parts };
  }

  private repeated(): RegexNode {
    const body = this.atom();
    const rest = this.text.slice(this.at, this.at + 24).join('');
    const found = /^(?:[*+?]|\{(\d+)(?:(,)(\d*))?\})/.exec(rest);
    if (!found) return body;
    this.at += found[0].length;
    // lazy or not, it is the same texts
    this.take('?');
    const [sign, low, comma, high] = found;
    if (low === undefined) return { kind: 'repeat', body, min: sign === '+' ? 1 : 0, max: sign === '?' ? 1 : Infinity };
    const max = comma === undefined ? Number(low) : high ? Number(high) : Infinity;
    return { kind: 'repeat', body, min: Number(low), max };
  }

  private atom(): RegexNode {
    const character = this.text[this.at++]!;
    switch (character) {
      case '^':
        return { kind: 'begin' };
      case '$':
        return { kind: 'end' };
      case '.':
        return { kind: 'set', set: complement(LINE_ENDS) };
      case '(':
        return this.group();
      case '[':
        return { kind: 'set', set: this.characterClass() };
      case '\\':
        return { kind: 'set', set: this.escape() };
      default:
        return { kind: 'set', set: one(character.codePointAt(0)!) };
    }
  }

  private group(): RegexNode {
    if (this.take('?') && !this.take(':')) {
      const next = this.text.slice(this.at, this.at + 2).join('');
      if (/^(?:[=!]|<[=!])/.test(next)) throw new RegexFault('looks ahead or behind');
      if (!this.take('<')) throw new RegexFault('changes flags within');
      while (!this.take('>')) this.at++; // a name
    }
    const body = this.choice();
    this.at++; // ')'
    return body;
  }

  private characterClass(): CodePoints {
    const negated = this.take('^');
    const sets: CodePoints[] = [];
    while (!this.take(']')) {
      const from = this.member();
      const range = this.text[this.at] === '-' && this.text[this.at + 1] !== ']';
      if (!range || from.length !== 1 || from[0]![0] !== from[0]![1]) {
        sets.push(from);
        continue;
      }
      this.at++;
      const to = this.member();
      sets.push(union(complement(complement([[from[0]![0], to[0]![0]]]))));
    }
    const set = union(...sets);
    return negated ? complement(set) : set;
  }

  private member(): CodePoints {
    const character = this.text[this.at++]!;
    if (character !== '\\') return one(character.codePointAt(0)!);
    if (this.take('b')) return one(8);
    return this.escape();
  }

  /** What stands after a backslash. */
  private escape(): CodePoints {
    const letter = this.text[this.at++]!;
    if (Object.hasOwn(CLASSES, letter)) return CLASSES[letter]!;
    if (Object.hasOwn(CONTROLS, letter)) return one(CONTROLS[letter]!);
    if (letter === 'c') return one(this.text[this.at++]!.charCodeAt(0) % 32);
    if (letter === 'x') return one(this.hex(2));
    if (letter === 'u') return one(this.unicode());
    if (letter === 'b' || letter === 'B') throw new RegexFault(`has \\${letter}, a border of words`);
    if (letter === 'p' || letter === 'P') throw new RegexFault(`has \\${letter}, properties of Unicode: name ranges`);
    if (/[1-9k]/.test(letter)) throw new RegexFault('refers back to a group');
    return one(letter.codePointAt(0)!);
  }

  private hex(digits: number): number {
    this.at += digits;
    return parseInt(this.text.slice(this.at - digits, this.at).join(''), 16);
  }

  private unicode(): number {
    if (this.take('{')) {
      const end = this.text.indexOf('}', this.at);
      const code = parseInt(this.text.slice(this.at, end).join(''), 16);
      this.at = end + 1;
      return code;
    }
    const unit = this.hex(4);
    const next = this.text.slice(this.at, this.at + 6).join('');
    if (unit < 0xd800 || unit > 0xdbff || !/^\\u[dD][c-fC-F]/.test(next)) return unit;
    this.at += 2;
    return 0x10000 + (unit - 0xd800) * 0x400 + (this.hex(4) - 0xdc00);
  }
}

/** @throws RegexFault for half of a surrogate pair, which no JSON of ours has */
function one(code: number): CodePoints {
  if (ALL.some(([from, to]) => code >= from && code <= to)) return [[code, code]];
  throw new RegexFault('has half of a surrogate pair');
}
