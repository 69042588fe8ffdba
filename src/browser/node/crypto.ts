/** What of node:crypto is used: hashes that are there at once, and random bytes. */
import { sha256 } from '@noble/hashes/sha2.js';
import { sha1 } from '@noble/hashes/legacy.js';
import { bytesToHex } from '@noble/hashes/utils.js';

interface Hash {
  update(data: string | Uint8Array): Hash;
  digest(encoding: 'hex'): string;
}

export function createHash(name: 'sha1' | 'sha256'): Hash {
  const inner = (name === 'sha1' ? sha1 : sha256).create();
  const hash: Hash = {
    update: (data) => {
      inner.update(typeof data === 'string' ? new TextEncoder().encode(data) : data);
      return hash;
    },
    digest: () => bytesToHex(inner.digest()),
  };
  return hash;
}

export function randomBytes(count: number): { toString(encoding: 'hex'): string } {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(count));
  return { toString: () => bytesToHex(bytes) };
}
