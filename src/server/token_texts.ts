/** What single tokens say: their text and bytes, which the API tells beside log-probabilities, and which grammars are matched with. */
import type { Tokenizer } from '../tokenizers/index.js';

/** How a vocabulary spells bytes. */
export type VocabularyKind = 'byte_level' | 'byte_fallback' | 'raw';

/** The characters that byte-level vocabularies write for bytes: printable ones stand for themselves, the others follow from U+0100 on (GPT-2's table). */
const BYTE_OF = byteOf();
const CHARACTER_OF: readonly string[] = [...BYTE_OF].sort(([, a], [, b]) => a - b).map(([character]) => character);

function byteOf(): ReadonlyMap<string, number> {
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    table.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return table;
}

export class TokenTexts {
  readonly kind: VocabularyKind;
  private readonly special: ReadonlySet<string>;
  private readonly cache = new Map<number, Uint8Array>();
  private readonly utf8 = new TextDecoder();

  constructor(private readonly tokenizer: Tokenizer) {
    const vocab = tokenizer.get_vocab();
    // a space and a line end, as each of them writes it
    this.kind = vocab.has('<0x0A>') ? 'byte_fallback' : vocab.has('Ġ') || vocab.has('Ċ') ? 'byte_level' : 'raw';
    this.special = new Set(Object.values(tokenizer.special_tokens).map(({ content }) => content));
  }

  /** Bytes of a token; those of special tokens are their names. */
  bytes(id: number): Uint8Array {
    const known = this.cache.get(id);
    if (known) return known;
    const token = this.tokenizer.id_to_token(id) ?? '';
    const bytes = this.special.has(token) ? Buffer.from(token) : this.spelled(token);
    this.cache.set(id, bytes);
    return bytes;
  }

  /** Its text; half a character shows as U+FFFD. */
  text(id: number): string {
    return this.utf8.decode(this.bytes(id));
  }

  /** Its bytes as byte-level vocabularies spell them, whatever this vocabulary does. */
  byteLevel(id: number): string {
    return Array.from(this.bytes(id), (byte) => CHARACTER_OF[byte]).join('');
  }

  private spelled(token: string): Uint8Array {
    if (this.kind === 'byte_level') {
      const bytes = Array.from(token, (character) => BYTE_OF.get(character));
      // an added token is written as it is
      if (bytes.every((byte) => byte !== undefined)) return Uint8Array.from(bytes);
    }
    if (this.kind === 'byte_fallback') {
      const byte = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
      if (byte !== undefined) return Uint8Array.of(parseInt(byte, 16));
      return Buffer.from(token.replaceAll('▁', ' '));
    }
    return Buffer.from(token);
  }
}
