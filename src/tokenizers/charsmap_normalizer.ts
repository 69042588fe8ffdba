/**
 * The normalizer of SentencePiece models, for the tokenizer in JavaScript: its own takes NFKC for every charsmap. As the tokenizers library's
 * spm_precompiled does it: a grapheme that begins as an entry of the charsmap becomes that entry's text, else each of its characters.
 */

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const encoder = new TextEncoder();

/** Longest grapheme that is looked up whole, in bytes. */
const LONGEST = 5;

/**
 * @param bytes a charsmap that charsMapFault() finds nothing wrong with
 */
export function charsMapNormalizer(bytes: Uint8Array): (text: string) => string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = view.getUint32(0, true);
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const texts = bytes.subarray(4 + size);
  const segmenter = new Intl.Segmenter('und', { granularity: 'grapheme' });
  const known = new Map<string, string | null>();

  /** The text of the shortest entry that a chunk begins with; null where there is none. */
  const lookUp = (chunk: string): string | null => {
    let at = offsetOf(units[0]!);
    for (const byte of encoder.encode(chunk)) {
      if (byte === 0) return null;
      at ^= byte;
      const unit = units[at]!;
      if ((unit & 0x800000ff) >>> 0 !== byte) return null;
      at ^= offsetOf(unit);
      if (((unit >>> 8) & 1) === 1) {
        const begin = units[at]! & 0x7fffffff;
        const end = texts.indexOf(0, begin);
        return decoder.decode(texts.subarray(begin, end < 0 ? texts.length : end));
      }
    }
    return null;
  };
  const entry = (chunk: string): string | null => {
    let found = known.get(chunk);
    if (found === undefined) known.set(chunk, (found = lookUp(chunk)));
    return found;
  };

  return (text) => {
    // each entry is short: what is remembered is bounded by the charsmap and the characters that there are
    if (known.size > 100_000) known.clear();
    let out = '';
    for (const { segment } of segmenter.segment(text)) {
      const whole = encoder.encode(segment).length <= LONGEST ? entry(segment) : null;
      if (whole !== null) out += whole;
      else for (const character of segment) out += entry(character) ?? character;
    }
    return out;
  };
}

const offsetOf = (unit: number): number => (unit >>> 10) << ((unit & (1 << 9)) >>> 6);
