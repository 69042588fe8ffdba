/** Texts through grammars: such as they let through, and whether they let one through. */
import { expect } from 'chai';
import { AutoTokenizer, type Tokenizer } from '../../src/index.js';
import { Grammars } from '../../src/server/grammar/grammars.js';
import { TokenTexts } from '../../src/server/token_texts.js';
import { MODEL } from './support.js';

const END = 0;

export class GrammarWalker {
  private constructor(
    private readonly tokenizer: Tokenizer,
    readonly texts: TokenTexts,
    readonly grammars: Grammars,
  ) {}

  static async load(): Promise<GrammarWalker> {
    const tokenizer = await AutoTokenizer.from_pretrained(MODEL);
    const texts = new TokenTexts(tokenizer);
    return new GrammarWalker(tokenizer, texts, new Grammars(texts, tokenizer.vocab_size, new Set([0, 1]), [END]));
  }

  /**
   * A text of random tokens that the grammar lets through; from some length on it takes the token that closes most.
   * @param tokens that it may have
   */
  async walk(grammar: string, random: () => number, { patience = 60, tokens = Infinity } = {}): Promise<string> {
    const rows = await this.grammars.of(grammar);
    const constraint = (await rows.constraints(1, tokens))(0);
    const ids: number[] = [];
    const text = (): string => Buffer.concat(ids.map((each) => this.texts.bytes(each))).toString();
    try {
      for (let step = 0; step < Math.min(tokens, 3000); step++) {
        const allowed = this.allowed(constraint.mask()!);
        expect(allowed.length, text()).to.be.greaterThan(0);
        let id = allowed[Math.floor(random() * allowed.length)]!;
        // with a limit as a model would that never ends by itself
        if (tokens < Infinity && id === END && allowed.length > 1) id = allowed.find((each) => each !== END)!;
        if (step > patience) id = allowed.find((each) => each === END) ?? this.closing(allowed) ?? id;
        const over = constraint.accept(id);
        if (id === END || over) return text();
        ids.push(id);
      }
      throw new Error(`The text has no end: ${text()}`);
    } finally {
      rows.dispose();
    }
  }

  /** Whether the grammar lets this text through, and has it for a whole one. */
  async accepts(grammar: string, text: string): Promise<boolean> {
    const rows = await this.grammars.of(grammar);
    const constraint = (await rows.constraints(1))(0);
    try {
      for (const id of [...(await this.tokenizer.encode(text, { add_special_tokens: false })), END]) {
        if (!this.allowed(constraint.mask()!).includes(id)) return false;
        constraint.accept(id);
      }
      return true;
    } finally {
      rows.dispose();
    }
  }

  private allowed(mask: Int32Array): number[] {
    const ids: number[] = [];
    for (let id = 0; id < this.tokenizer.vocab_size; id++) if ((mask[id >>> 5]! >>> (id & 31)) & 1) ids.push(id);
    return ids;
  }

  private closing(ids: readonly number[]): number | undefined {
    return ['"', '}', ']', '":', '"}', '0', 'e', ':', ',']
      .map((text) => ids.find((id) => this.texts.text(id) === text))
      .find((id) => id !== undefined);
  }
}
