/** What of node:os is used. */

/** Browsers run on little-endian processors alone: their typed arrays say so. */
export const endianness = (): 'LE' | 'BE' => (new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? 'LE' : 'BE');
export const hostname = (): string => 'browser';
export const homedir = (): string => 'opfs:/';
export const tmpdir = (): string => 'opfs:/tmp';
