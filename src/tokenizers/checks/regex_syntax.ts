/**
 * Regular expressions as Oniguruma, which the tokenizers library uses, writes them: read into a tree that is good for one question, how
 * long a match may take. What a character is allowed to be is a list of truths, one for each of some characters that stand for all.
 */

/** Which of the characters that stand for all are allowed. */
export type CharacterSet = readonly boolean[];

export type RegexNode =
  | { kind: 'set'; set: CharacterSet }
  | { kind: 'sequence'; parts: RegexNode[] }
  | { kind: 'choice'; parts: RegexNode[] }
  | { kind: 'repeat'; body: RegexNode; min: number; max: number }
  /** looked for, and not consumed */
  | { kind: 'look'; body: RegexNode };

/** A pattern that cannot be read, or that has what no bound of time can be given for. */
export class RegexSyntaxFault extends Error {}

/** Of every kind of character at least one. */
const STAND_INS = [
  ...Array.from({ length: 128 }, (_, code) => String.fromCharCode(code)),
  ...'\u0085\u00a0\u00ad°ªµ·½¿ÀßáàéñøÿŁłſΩωЖжאבعلकाि์ไทยぁアー中漢字々한글ǅʰΣ٣४Ⅷ²',
  ...'\u0301\u20dd\u200b\u200d\u2028\u2029\u3000\ufeff\ufffd\ue000\u0378€£+×©™“”’«»—‿…、。！・😀🇩👩',
];

const DEEPEST = 50;

export function parseRegex(pattern: string): RegexNode {
  return new Parser(pattern).parse();
}

class Parser {
  private readonly text: string[];
  private readonly samples: string[];
  private at = 0;
  private depth = 0;
  private ignoreCase = false;

  constructor(pattern: string) {
    this.text = [...pattern];
    // its own characters are told apart, too
    this.samples = [...new Set([...STAND_INS, ...this.text])];
  }

  parse(): RegexNode {
    const node = this.choice();
    if (this.at < this.text.length) throw new RegexSyntaxFault('has a bracket that nothing opens');
    return node;
  }

  private set(test: (character: string) => boolean): CharacterSet {
    if (!this.ignoreCase) return this.samples.map(test);
    return this.samples.map((c) => test(c) || test(c.toLowerCase()) || test(c.toUpperCase()));
  }

  private peek(text: string): boolean {
    return [...text].every((c, i) => this.text[this.at + i] === c);
  }

  private take(text: string): boolean {
    if (!this.peek(text)) return false;
    this.at += [...text].length;
    return true;
  }

  private next(): string {
    const c = this.text[this.at++];
    if (c === undefined) throw new RegexSyntaxFault('ends too early');
    return c;
  }

  private choice(): RegexNode {
    if (++this.depth > DEEPEST) throw new RegexSyntaxFault(`is nested deeper than ${DEEPEST}`);
    const before = this.ignoreCase;
    const parts = [this.sequence()];
    while (this.take('|')) parts.push(this.sequence());
    this.ignoreCase = before;
    this.depth--;
    return parts.length === 1 ? parts[0]! : { kind: 'choice', parts };
  }

  private sequence(): RegexNode {
    const parts: RegexNode[] = [];
    while (this.at < this.text.length && !this.peek('|') && !this.peek(')')) parts.push(this.quantified());
    return parts.length === 1 ? parts[0]! : { kind: 'sequence', parts };
  }

  private quantified(): RegexNode {
    let node = this.atom();
    for (let times = this.quantifier(); times; times = this.quantifier())
      node = { kind: 'repeat', body: node, ...times };
    return node;
  }

  private quantifier(): { min: number; max: number } | null {
    const times = this.take('*')
      ? [0, Infinity]
      : this.take('+')
        ? [1, Infinity]
        : this.take('?')
          ? [0, 1]
          : this.braces();
    if (!times) return null;
    // lazy or possessive: what may be matched is the same
    if (!this.take('?')) this.take('+');
    return { min: times[0]!, max: times[1]! };
  }

  private braces(): number[] | null {
    const found = /^\{(\d{0,6})(,?)(\d{0,6})\}/.exec(this.text.slice(this.at, this.at + 20).join(''));
    if (!found || (found[1] === '' && found[3] === '')) return null;
    this.at += found[0].length;
    const min = Number(found[1]);
    return [min, found[2] === '' ? min : found[3] === '' ? Infinity : Number(found[3])];
  }

  private atom(): RegexNode {
    const c = this.next();
    if (c === '(') return this.group();
    if (c === '[') return { kind: 'set', set: this.set(this.characterClass()) };
    if (c === '.') return { kind: 'set', set: this.set((each) => each !== '\n') };
    if (c === '^' || c === '$') return EMPTY;
    if (c !== '\\') return { kind: 'set', set: this.set((each) => each === c) };
    if (/^[bBAzZGyYK]$/.test(this.text[this.at] ?? '')) {
      this.at++;
      return EMPTY;
    }
    if (this.take('R')) return { kind: 'set', set: this.set((each) => /[\n-\r\u0085\u2028\u2029]/.test(each)) };
    if (this.take('X')) return { kind: 'set', set: this.samples.map(() => true) };
    return { kind: 'set', set: this.set(this.escape(false)) };
  }

  private group(): RegexNode {
    let look = false;
    const before = this.ignoreCase;
    if (this.take('?')) {
      const flags = /^([a-z]*)(?:-([a-z]*))?([:)])/.exec(this.text.slice(this.at, this.at + 20).join(''));
      if (this.take('#')) {
        while (this.next() !== ')');
        return EMPTY;
      }
      if (this.take('=') || this.take('!') || this.take('<=') || this.take('<!')) look = true;
      else if (this.take('<') || this.take("'") || this.take('P<')) this.groupName();
      else if (flags) {
        this.at += flags[0].length;
        if (flags[1]!.includes('x')) throw new RegexSyntaxFault('is written in the extended form');
        if (flags[1]!.includes('i')) this.ignoreCase = true;
        if (flags[2]?.includes('i')) this.ignoreCase = false;
        if (flags[3] === ')') return EMPTY; // to the end of the group around it
      } else if (!this.take('>')) throw new RegexSyntaxFault('has a group of a kind that is not known here');
    }
    const body = this.choice();
    this.ignoreCase = before;
    if (!this.take(')')) throw new RegexSyntaxFault('has a group that nothing closes');
    return look ? { kind: 'look', body } : body;
  }

  private groupName(): void {
    while (!/[>']/.test(this.next()));
  }

  /** After a backslash: what a character must be. */
  private escape(inClass: boolean): (c: string) => boolean {
    const c = this.next();
    if (/[dwshDWSH]/.test(c)) {
      const is = { d: /\p{Nd}/u, w: /[\p{L}\p{M}\p{N}\p{Pc}]/u, s: /[\s\u0085]/u, h: /[0-9a-fA-F]/u }[c.toLowerCase()]!;
      const positive = c === c.toLowerCase();
      return (each) => is.test(each) === positive;
    }
    if (c === 'p' || c === 'P') return this.property(c === 'P');
    if (!inClass && /[1-9kg]/.test(c)) throw new RegexSyntaxFault('refers back to what it matched');
    if (/[xu]/.test(c)) {
      const found = /^(?:\{([0-9a-fA-F]{1,6})\}|([0-9a-fA-F]{1,4}))/.exec(
        this.text.slice(this.at, this.at + 8).join(''),
      );
      const code = parseInt(found?.[1] ?? found?.[2]?.slice(0, c === 'x' ? 2 : 4) ?? 'z', 16);
      if (!found || !(code <= 0x10ffff)) throw new RegexSyntaxFault(`has \\${c} without a number`);
      this.at += found[1] === undefined ? Math.min(found[2]!.length, c === 'x' ? 2 : 4) : found[0].length;
      const wanted = String.fromCodePoint(code);
      return (each) => each === wanted;
    }
    const plain = (
      { n: '\n', r: '\r', t: '\t', f: '\f', v: '\v', a: '\x07', e: '\x1b', 0: '\0' } as Record<string, string>
    )[c];
    return (each) => each === (plain ?? c);
  }

  private property(not: boolean): (c: string) => boolean {
    const name = this.take('{') ? this.upTo('}') : this.next();
    const bare = name.replace(/^\^/, '');
    const negative = not !== name.startsWith('^');
    const is = propertyTest(bare);
    // of a property that JavaScript does not have, any character may be
    return is ? (c) => is.test(c) !== negative : () => true;
  }

  private upTo(end: string): string {
    let text = '';
    for (let c = this.next(); c !== end; c = this.next()) text += c;
    return text;
  }

  /** After an opening bracket. */
  private characterClass(): (c: string) => boolean {
    if (++this.depth > DEEPEST) throw new RegexSyntaxFault(`is nested deeper than ${DEEPEST}`);
    const negative = this.take('^');
    const all: ((c: string) => boolean)[][] = [[]];
    for (let first = true; first || !this.peek(']'); first = false) {
      if (this.take('&&')) all.push([]);
      else all.at(-1)!.push(this.classItem());
    }
    this.at++;
    this.depth--;
    return (c) => all.every((some) => some.some((test) => test(c))) !== negative;
  }

  private classItem(): (c: string) => boolean {
    if (this.take('[:')) {
      const name = this.upTo(':').replace(/^\^/, '');
      if (!this.take(']')) throw new RegexSyntaxFault('has a class of characters that nothing closes');
      const is = propertyTest(name === 'alnum' ? 'L' : name);
      return is ? (c) => is.test(c) : () => true;
    }
    if (this.take('[')) return this.characterClass();
    const from = this.take('\\') ? this.escape(true) : this.literal();
    if (!this.peek('-') || this.text[this.at + 1] === ']') return from;
    this.at++;
    if (this.peek('[')) return (c) => from(c) || c === '-';
    const to = this.take('\\') ? this.escape(true) : this.literal();
    const [low, high] = [this.samples.find(from), this.samples.find(to)];
    // an end that none of the characters stands for: anything may lie between
    if (low === undefined || high === undefined) return () => true;
    return (c) => c.codePointAt(0)! >= low.codePointAt(0)! && c.codePointAt(0)! <= high.codePointAt(0)!;
  }

  private literal(): (c: string) => boolean {
    const wanted = this.next();
    return (c) => c === wanted;
  }
}

const EMPTY: RegexNode = { kind: 'sequence', parts: [] };

/** A property by one of the names that Oniguruma takes. */
function propertyTest(name: string): RegExp | null {
  const capital = name.charAt(0).toUpperCase() + name.slice(1);
  const others: Record<string, string> = {
    Alpha: 'Alphabetic',
    Space: 'White_Space',
    Punct: 'P',
    Digit: 'Nd',
    Upper: 'Lu',
    Lower: 'Ll',
  };
  for (const each of [name, capital, others[capital] ?? '', `Script=${name}`, `Script=${capital}`]) {
    try {
      if (each !== '') return new RegExp(`\\p{${each}}`, 'u');
    } catch {
      // not by this name
    }
  }
  return null;
}
