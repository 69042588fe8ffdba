/** Grammars over the tokens of one model: a text that a constraint has led to its end is of its grammar. */
import type * as xgrammar from '@mlc-ai/web-xgrammar';
import type { TokenConstraint } from '../../engine/scheduler/types.js';
import type { TokenTexts } from '../token_texts.js';
import { Closers, Closing, type Trial } from './closing.js';
import { hasSolid } from './code_points.js';
import { WellFormed } from './well_formed.js';
import { loadXGrammar } from './xgrammar.js';

/** Compiled grammars that are kept. */
const MOST = 32;

/** What xgrammar's matcher has below its promises. */
interface MatcherHandle {
  GetNextTokenBitmask(vocab: number): { size(): number; get(at: number): number; delete(): void };
}

export class Grammars {
  private closing: Closers | null = null;
  private readonly formed: WellFormed;
  private compiler: Promise<xgrammar.GrammarCompiler> | null = null;
  /** By their text, the one used longest ago first. */
  private readonly compiled = new Map<string, Promise<xgrammar.CompiledGrammar>>();

  /**
   * @param vocab_size ids that the tokenizer has
   * @param special ids that write no text, and never stand in one of a grammar
   * @param ends ids that end a text
   */
  constructor(
    private readonly texts: Pick<TokenTexts, 'byteLevel' | 'bytes' | 'text'>,
    private readonly vocab_size: number,
    private readonly special: ReadonlySet<number>,
    private readonly ends: readonly number[],
  ) {
    this.formed = new WellFormed(vocab_size, (id) => texts.bytes(id));
  }

  private get closers(): Closers {
    this.closing ??= new Closers(this.vocab_size, this.ends, (id) => (this.special.has(id) ? '' : this.texts.text(id)));
    return this.closing;
  }

  /** A grammar for as many rows as ask for it. @param ebnf with a rule `root` */
  async of(ebnf: string): Promise<RowGrammars> {
    const { GrammarMatcher } = await loadXGrammar();
    const compiled = await this.compile(ebnf);
    return new RowGrammars(
      () =>
        GrammarMatcher.createGrammarMatcher(
          compiled,
          this.ends.length ? [...this.ends] : undefined,
          this.ends.length === 0,
        ),
      this.vocab_size,
      this.closers,
      this.formed,
      !hasSolid(ebnf),
    );
  }

  private async compile(ebnf: string): Promise<xgrammar.CompiledGrammar> {
    const known = this.compiled.get(ebnf);
    this.compiled.delete(ebnf);
    const promise = known ?? this.load().then((compiler) => compiler.compileGrammar(ebnf));
    this.compiled.set(ebnf, promise);
    for (const [text, old] of this.compiled) {
      if (this.compiled.size <= MOST) break;
      this.compiled.delete(text);
      // matchers hold on to what they need of it
      void old.then((each) => each.dispose()).catch(() => undefined);
    }
    try {
      return await promise;
    } catch (error) {
      this.compiled.delete(ebnf);
      throw error;
    }
  }

  private load(): Promise<xgrammar.GrammarCompiler> {
    this.compiler ??= (async () => {
      const { GrammarCompiler, TokenizerInfo } = await loadXGrammar();
      const vocab = Array.from({ length: this.vocab_size }, (_, id) =>
        // tokens without text are left out by xgrammar
        this.special.has(id) ? '' : this.texts.byteLevel(id),
      );
      const info = await TokenizerInfo.createTokenizerInfo(vocab, 'byte_level', false, this.vocab_size, [...this.ends]);
      return GrammarCompiler.createGrammarCompiler(info, false);
    })();
    return this.compiler;
  }
}

/** The constraints of the rows of one request. */
export class RowGrammars {
  private readonly made: xgrammar.GrammarMatcher[] = [];

  constructor(
    private readonly make: () => Promise<xgrammar.GrammarMatcher>,
    private readonly vocab_size: number,
    private readonly closers: Closers,
    private readonly formed: WellFormed,
    private readonly spaces: boolean,
  ) {}

  /** Makes constraints for so many rows. @param tokens that a text may have: it comes to an end in time, where that can be */
  async constraints(rows: number, tokens = Infinity): Promise<(choice: number) => TokenConstraint> {
    for (let row = 0; row < rows; row++) this.made.push(await this.make());
    const constraints = this.made.map(
      (matcher) => new MatcherConstraint(matcher, this.vocab_size, this.closers, this.formed, this.spaces, tokens),
    );
    return (choice) => constraints[choice]!;
  }

  dispose(): void {
    for (const matcher of this.made.splice(0)) matcher.dispose();
  }
}

class MatcherConstraint implements TokenConstraint {
  private readonly words: Int32Array;
  private readonly closing: Closing | null;
  /** Bytes of a character that has begun, at the end of the text. */
  private end = '';

  constructor(
    private readonly matcher: xgrammar.GrammarMatcher,
    private readonly vocab_size: number,
    closers: Closers,
    private readonly formed: WellFormed,
    private readonly spaces: boolean,
    tokens: number,
  ) {
    this.words = new Int32Array((vocab_size + 31) >>> 5);
    this.closing = tokens === Infinity ? null : new Closing(matcher, closers, tokens, () => this.trial());
  }

  mask(): Int32Array {
    const mask = this.read(this.words, this.end);
    this.closing?.restrict(mask);
    return mask;
  }

  accept(id: number): boolean {
    this.matcher.acceptToken(id);
    this.closing?.note(id);
    this.end = this.formed.after(this.end, id);
    return this.matcher.isTerminated();
  }

  /** The closing's own way: what it takes it takes back. */
  private trial(): Trial {
    const words = this.words.slice();
    let { end } = this;
    return {
      mask: () => this.read(words, end),
      take: (id) => {
        end = this.formed.after(end, id);
        return this.matcher.acceptToken(id);
      },
    };
  }

  private read(words: Int32Array, end: string): Int32Array {
    // the library's own way to the mask is a promise, although its program answers at once
    const handle = (this.matcher as unknown as { handle: MatcherHandle }).handle;
    const mask = handle.GetNextTokenBitmask(this.vocab_size);
    for (let at = 0; at < words.length; at++) words[at] = mask.get(at);
    mask.delete();
    const allowed = this.formed.mask(end, this.spaces);
    for (let at = 0; at < words.length; at++) words[at]! &= allowed[at]!;
    return words;
  }
}
