/** Names of prefixes: a hash of the ids read one by one, so that one pass over a prompt names all its prefixes. Who finds a name compares the ids. */

class PrefixHash {
  private a = 0x9e3779b9;
  private b = 0x85ebca6b;
  private count = 0;

  add(id: number): void {
    this.a = mix(this.a ^ id, 0x21f0aaad);
    this.b = mix((this.b + id) | 0, 0x735a2d97);
    this.count++;
  }

  /** Of the ids so far: hexadecimal digits, and how many ids they are. */
  get name(): string {
    return `${hex(this.a)}${hex(this.b)}-${this.count}`;
  }
}

function mix(x: number, by: number): number {
  let z = Math.imul(x ^ (x >>> 16), by);
  z = Math.imul(z ^ (z >>> 15), 0x2c1b3c6d);
  return (z ^ (z >>> 13)) + 0x6d2b79f5;
}

const hex = (x: number): string => (x >>> 0).toString(16).padStart(8, '0');

/** How many ids a name is of; null for what is no name. */
export function lengthOf(name: string): number | null {
  const count = /^[0-9a-f]{16}-(\d{1,15})$/.exec(name)?.[1];
  return count === undefined ? null : Number(count);
}

/** The name of all of them. */
export function nameOf(ids: ArrayLike<number>): string {
  const hash = new PrefixHash();
  for (let i = 0; i < ids.length; i++) hash.add(ids[i]!);
  return hash.name;
}

/** Names of the prefixes of some lengths, longest first. */
export function namesOf(ids: ArrayLike<number>, lengths: ReadonlySet<number>): { length: number; name: string }[] {
  const found: { length: number; name: string }[] = [];
  const hash = new PrefixHash();
  for (let i = 0; i < ids.length; i++) {
    hash.add(ids[i]!);
    if (lengths.has(i + 1)) found.push({ length: i + 1, name: hash.name });
  }
  return found.reverse();
}
