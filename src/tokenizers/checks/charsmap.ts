/**
 * The charsmap of a SentencePiece model: a trie over bytes (a double array, as the Darts library writes it) whose values are places in
 * a table of texts. The tokenizers library follows it without looking where it leads, so all of it that can be reached is checked.
 */

/** What is wrong with a charsmap, or null. */
export function charsMapFault(bytes: Uint8Array): string | null {
  if (bytes.length < 4) return 'is no charsmap: it has no trie';
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = view.getUint32(0, true);
  if (size === 0 || size % 4 !== 0 || size > bytes.length - 4)
    return `is no charsmap: its trie has ${size} bytes, of ${bytes.length - 4}`;
  const texts = bytes.subarray(4 + size);
  if (!isUtf8(texts)) return 'is no charsmap: its texts are not UTF-8';
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  return followFault(units, texts);
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

const offsetOf = (unit: number): number => (unit >>> 10) << ((unit & (1 << 9)) >>> 6);
const labelOf = (unit: number): number => (unit & 0x800000ff) >>> 0;
const hasLeaf = (unit: number): boolean => ((unit >>> 8) & 1) === 1;
const valueOf = (unit: number): number => unit & 0x7fffffff;

/** Follows every path of the trie: no step may leave it, and no value may lie outside of the texts. */
function followFault(units: Uint32Array, texts: Uint8Array): string | null {
  const outside = 'is no charsmap: its trie leads outside of itself';
  const open = [offsetOf(units[0]!)];
  const seen = new Set(open);
  while (open.length > 0) {
    const base = open.pop()!;
    // every byte of a text may come next, and is looked up
    if ((base | 0xff) >>> 0 >= units.length) return outside;
    for (let byte = 1; byte < 256; byte++) {
      const at = base ^ byte;
      const unit = units[at]!;
      if (labelOf(unit) !== byte) continue;
      const next = at ^ offsetOf(unit);
      if (next < 0 || next >= units.length) return outside;
      if (hasLeaf(unit)) {
        const value = valueOf(units[next]!);
        if (value >= texts.length || (texts[value]! & 0xc0) === 0x80)
          return 'is no charsmap: its trie names texts that it has not';
      }
      if (!seen.has(next)) {
        seen.add(next);
        open.push(next);
      }
    }
  }
  return null;
}
