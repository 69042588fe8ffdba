/**
 * Keeps the bytes of a text well formed, which xgrammar does not: UTF-8 of characters that there are, since each of a broken one's bytes would
 * count as a character; and where a grammar asks for it, no spaces beyond ASCII, for which JSON has escapes.
 */
import { codesOf, WIDE_SPACES } from './code_points.js';

const SPACES = codesOf(WIDE_SPACES).map((code) => Buffer.from(String.fromCodePoint(code)).toString('latin1'));
/** What a text may end with that could become one of them. */
const BEGINNINGS = new Set(SPACES.flatMap((each) => Array.from(each, (_, length) => each.slice(0, length))));

/** One character of UTF-8, a byte a letter (RFC 3629), with as much of it as there is at the end of a text. */
const CHARACTERS =
  /^(?:[\x00-\x7f]|[\xc2-\xdf](?:[\x80-\xbf]|$)|\xe0(?:$|[\xa0-\xbf](?:[\x80-\xbf]|$))|\xed(?:$|[\x80-\x9f](?:[\x80-\xbf]|$))|[\xe1-\xec\xee\xef](?:$|[\x80-\xbf](?:[\x80-\xbf]|$))|\xf0(?:$|[\x90-\xbf](?:$|[\x80-\xbf](?:[\x80-\xbf]|$)))|\xf4(?:$|[\x80-\x8f](?:$|[\x80-\xbf](?:[\x80-\xbf]|$)))|[\xf1-\xf3](?:$|[\x80-\xbf](?:$|[\x80-\xbf](?:[\x80-\xbf]|$))))*$/; // eslint-disable-line no-control-regex -- bytes
const BEGUN = /(?:[\xc2-\xf4]|[\xe0-\xf4][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2})$/;

/** Which tokens may come after which ends of a text: the same for all texts of a vocabulary. */
export class WellFormed {
  private readonly masks = new Map<string, Int32Array>();
  private tokens: readonly string[] | null = null;

  /** @param bytes of a token */
  constructor(
    private readonly vocab_size: number,
    private readonly bytes: (id: number) => Uint8Array,
  ) {}

  /** A bit for each id that may come. @param end bytes of a character that has begun @param spaces whether those beyond ASCII may stand */
  mask(end: string, spaces: boolean): Int32Array {
    const key = `${spaces ? ' ' : ''}${spaces || !BEGINNINGS.has(end) ? kindOf(end) : end}`;
    const known = this.masks.get(key);
    if (known) return known;
    this.tokens ??= Array.from({ length: this.vocab_size }, (_, id) => this.latin(id));
    const mask = new Int32Array((this.vocab_size + 31) >>> 5);
    for (const [id, token] of this.tokens.entries()) {
      const text = end + token;
      if (CHARACTERS.test(text) && (spaces || !SPACES.some((each) => text.includes(each))))
        mask[id >>> 5]! |= 1 << (id & 31);
    }
    this.masks.set(key, mask);
    return mask;
  }

  /** The end of a text after one more token. */
  after(end: string, id: number): string {
    return BEGUN.exec(end + this.latin(id))?.[0] ?? '';
  }

  private latin(id: number): string {
    return Buffer.from(this.bytes(id)).toString('latin1');
  }
}

/** Ends after which the same bytes may come. */
function kindOf(end: string): string {
  if (end === '' || 'àíðô'.includes(end)) return end; // E0, ED, F0, F4: what may follow is less than elsewhere
  const length = end[0]! < '\xe0' ? 2 : end[0]! < '\xf0' ? 3 : 4;
  return String(length - end.length);
}
