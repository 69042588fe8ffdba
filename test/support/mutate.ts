/**
 * Damaged inputs: bytes, texts and JSON changed at random, the same for the same generator of numbers. `how` says what was done, for
 * messages.
 *
 * @example
 * const random = lcg(17);
 * const { bytes, how } = mutateJson(readFileSync('config.json'), random);
 */

export interface Mutation {
  bytes: Uint8Array;
  how: string;
}

/** A whole number below n. */
const below = (random: () => number, n: number): number => Math.floor(random() * n);
const pick = <T>(random: () => number, list: readonly T[]): T => list[below(random, list.length)]!;

/** Bytes with a meaning in some format, likelier to lead somewhere than random ones. */
const TOKENS = [
  ...['0', '9', '-', '[', ']', '{', '}', '"', ',', ':', '\\', 'null', 'true', '1e999', '18446744073709551615'],
  ...['\x00\x00\x00\x00', '\xff\xff\xff\xff', '\xff\xff\xff\x7f', '\x80', '\xed\xa0\x80', '\xef\xbb\xbf', '\\u0000'],
  ...['PK\x01\x02', 'PK\x05\x06', 'PAR1', '{{', '{%', '(a+)+$', '\n', '\r\n'],
].map((text) => Buffer.from(text, 'latin1'));

/** One to four changes of bytes: a bit turned, a byte set, a token written over or put in, bytes removed, doubled, moved, zeroed, cut. */
export function mutateBytes(bytes: Uint8Array, random: () => number): Mutation {
  let out = Buffer.from(bytes);
  const how: string[] = [];
  for (let left = 1 + below(random, 4); left > 0 && out.length > 0; left--) {
    const at = below(random, out.length);
    const length = 1 + below(random, pick(random, [4, 16, 256, out.length]));
    const token = pick(random, TOKENS);
    const kind = pick(random, ['turn', 'set', 'over', 'insert', 'remove', 'double', 'move', 'zero', 'cut'] as const);
    how.push(`${kind} at ${at}`);
    if (kind === 'turn') out[at]! ^= 1 << below(random, 8);
    else if (kind === 'set') out[at] = below(random, 256);
    else if (kind === 'over') out.set(token.subarray(0, out.length - at), at);
    else if (kind === 'insert') out = Buffer.concat([out.subarray(0, at), token, out.subarray(at)]);
    else if (kind === 'remove') out = Buffer.concat([out.subarray(0, at), out.subarray(at + length)]);
    else if (kind === 'double') out = Buffer.concat([out.subarray(0, at + length), out.subarray(at)]);
    else if (kind === 'move') out.copyWithin(at, below(random, out.length), below(random, out.length) + length);
    else if (kind === 'zero') out.fill(0, at, Math.min(out.length, at + length));
    else if (below(random, 3) === 0) out = out.subarray(0, at);
  }
  return { bytes: new Uint8Array(out), how: how.join(', ') };
}

/** Values that a place of JSON may be given instead of its own. */
const ODD: readonly (() => unknown)[] = [
  ...[null, true, false, 0, 1, -1, 1.5, -0.5, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 31), 1e6, 1e18, 1e308, 4097].map(
    (value) => () => value,
  ),
  ...[
    '',
    ' ',
    'a',
    '0',
    'null',
    '\u0000',
    '\ud800',
    '😀',
    '[UNK]',
    '(a+)+$',
    '(a|a)*b',
    '[',
    '\\',
    '.*',
    '../../x',
  ].map((value) => () => value),
  () => [],
  () => ({}),
  () => [[]],
  () => [null],
  () => ({ type: 'Sequence' }),
  () => 'x'.repeat(100_000),
  () => new Array<number>(1000).fill(0),
  () => DEEP,
];

/** Becomes lists in lists …, deeper than JSON.stringify can write: JSON.parse reads such a text. */
const DEEP = 'lists in lists';
const NESTED = '['.repeat(50_000) + ']'.repeat(50_000);

type Container = Record<string, unknown> | unknown[];
const isContainer = (value: unknown): value is Container => typeof value === 'object' && value !== null;

/**
 * A place in a value, by a walk from its root that turns anywhere with equal chances: the few parts near the root are met as often as
 * the thousands of entries of a vocabulary.
 */
function place(root: Container, random: () => number): { parent: Container; key: string; path: string } | null {
  let parent = root;
  let path = '';
  while (true) {
    const keys = Object.keys(parent);
    if (keys.length === 0) return null;
    const key = pick(random, keys);
    path += `/${key}`;
    const value = (parent as Record<string, unknown>)[key];
    if (!isContainer(value) || Object.keys(value).length === 0 || random() < 0.3) return { parent, key, path };
    parent = value;
  }
}

/** Changes one place of a value, in place; says what it did. */
function change(root: Container, random: () => number): string {
  const found = place(root, random);
  if (!found) return 'nothing';
  const { parent, key, path } = found;
  const record = parent as Record<string, unknown>;
  const value = record[key];
  const kind = pick(random, [
    'odd',
    'odd',
    'odd',
    'remove',
    'double',
    'rename',
    'swap',
    'wrap',
    'near',
    'near',
  ] as const);
  if (kind === 'odd') record[key] = pick(random, ODD)();
  else if (kind === 'remove') {
    if (Array.isArray(parent)) parent.splice(Number(key), 1);
    else delete parent[key];
  } else if (kind === 'double') {
    if (Array.isArray(parent)) parent.splice(Number(key), 0, structuredClone(value));
    else parent[`${key}${below(random, 9)}`] = structuredClone(value);
  } else if (kind === 'rename') {
    if (Array.isArray(parent)) parent.reverse();
    else {
      delete parent[key];
      parent[pick(random, ['type', 'content', 'pattern', 'id', `${key}_`, key.toUpperCase()])] = value;
    }
  } else if (kind === 'swap') {
    const other = pick(random, Object.keys(parent));
    [record[key], record[other]] = [record[other], value];
  } else if (kind === 'wrap') record[key] = random() < 0.5 ? [value] : { [key]: value };
  else record[key] = near(value, random);
  return `${kind} ${path}`;
}

/** A value of the same kind, a little off. */
function near(value: unknown, random: () => number): unknown {
  if (typeof value === 'number') return value + pick(random, [-1, 1, 0.5, -value, value * 1e6]);
  if (typeof value === 'boolean') return !value;
  if (typeof value === 'string') {
    const { bytes } = mutateBytes(Buffer.from(value), random);
    return Buffer.from(bytes).toString();
  }
  if (Array.isArray(value)) return [...(value as unknown[]), ...(value as unknown[]).slice(0, 3)];
  return value === null ? 0 : {};
}

/** One to three changes of a JSON text's value; a time in four, of its bytes. */
export function mutateJson(bytes: Uint8Array, random: () => number): Mutation {
  if (random() < 0.25) return mutateBytes(bytes, random);
  const root = JSON.parse(Buffer.from(bytes).toString()) as Container;
  const how: string[] = [];
  for (let left = 1 + below(random, 3); left > 0; left--) how.push(change(root, random));
  return { bytes: Buffer.from(JSON.stringify(root).replaceAll(`"${DEEP}"`, NESTED)), how: how.join(', ') };
}
