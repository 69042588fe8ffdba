/** Bytes: as text in base64, joined, compared. */

export function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

/** The bytes of a text in base64; what is none in it is passed over. */
export function fromBase64(text: string): Uint8Array {
  const end = text.indexOf('=');
  const known = (end < 0 ? text : text.slice(0, end)).replace(/[^A-Za-z0-9+/]/g, '');
  return Uint8Array.from(atob(known.length % 4 === 1 ? known.slice(0, -1) : known), (c) => c.charCodeAt(0));
}

/** Pieces one after another. */
export function concatBytes(pieces: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}

/** Whether two arrays hold the same bytes. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
