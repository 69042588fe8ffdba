/** Sets of Unicode's code points, and how a grammar writes them within a JSON string. */

/** Ranges in order, apart from one another, both ends included. Halves of surrogate pairs are in none. */
export type CodePoints = readonly (readonly [from: number, to: number])[];

const LAST = 0x10ffff;

export const ALL: CodePoints = [
  [0, 0xd7ff],
  [0xe000, LAST],
];

export function union(...sets: readonly CodePoints[]): CodePoints {
  const sorted = sets.flat().sort(([a], [b]) => a - b);
  const joined: [number, number][] = [];
  for (const [from, to] of sorted) {
    const last = joined.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else joined.push([from, to]);
  }
  return joined;
}

export function complement(set: CodePoints): CodePoints {
  const left: [number, number][] = [];
  for (const [low, high] of ALL) {
    let next = low;
    for (const [from, to] of set) {
      if (to < next || from > high) continue;
      if (from > next) left.push([next, from - 1]);
      next = to + 1;
    }
    if (next <= high) left.push([next, high]);
  }
  return left;
}

/** White space beyond ASCII, as `\s` of regular expressions has it. */
export const WIDE_SPACES: CodePoints = [
  ...([[0xa0, 0xa0], [0x1680, 0x1680], [0x2000, 0x200a], [0x2028, 0x2029], [0x202f, 0x202f]] as const), // prettier-ignore
  ...([
    [0x205f, 0x205f],
    [0x3000, 0x3000],
    [0xfeff, 0xfeff],
  ] as const),
];

/** What JSON cannot hold as it is; DEL as well, since some readers do not. */
const ESCAPED: CodePoints = [
  [0, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
  [0x7f, 0x7f],
];
const ASCII: CodePoints = [[0, 0x7f]];
const BEYOND = complement(ASCII);
/** Most characters beyond ASCII that a set may have, unless it has all: each is a literal. */
const MOST_BEYOND = 256;

/**
 * Rules that inString() names. xgrammar's classes know characters beyond ASCII only as a whole. Those of `solid` are no spaces, which
 * well_formed.ts sees to where a grammar has it: spaces are then escapes everywhere.
 */
export const CODE_POINT_RULES = `
beyond ::= [^\\x00-\\x7f]
solid ::= [^\\x00-\\x7f]
`;

/** Whether a grammar has the rule `solid` for more than its own sake. */
export function hasSolid(ebnf: string): boolean {
  return (ebnf.match(/\bsolid\b/g)?.length ?? 0) > 1;
}

/** The right side of a rule for one character of the set, as it stands in a JSON string; null for sets that no grammar here has. */
export function inString(set: CodePoints): string | null {
  if (size(set) === size(ALL)) return 'char';
  const ascii = intersection(set, ASCII);
  const raw = intersection(ascii, complement(ESCAPED));
  const escapes = codesOf(intersection(ascii, ESCAPED));
  const parts = raw.length > 0 ? [characterClass(raw)] : [];
  const beyond = intersection(set, BEYOND);
  const missing = intersection(complement(set), BEYOND);
  if (size(beyond) <= MOST_BEYOND) {
    for (const code of codesOf(beyond))
      if (size(intersection([[code, code]], WIDE_SPACES)) === 1) escapes.push(code);
      else parts.push(`"${inLiteral(code)}"`);
  } else {
    if (size(intersection(missing, complement(WIDE_SPACES))) > 0) return null;
    parts.push(missing.length === 0 ? 'beyond' : 'solid');
    escapes.push(...codesOf(intersection(set, WIDE_SPACES)));
  }
  parts.push(...escapes.map(escaped));
  return parts.join(' | ');
}

function intersection(a: CodePoints, b: CodePoints): CodePoints {
  return complement(union(complement(a), complement(b)));
}

function size(set: CodePoints): number {
  return set.reduce((sum, [from, to]) => sum + to - from + 1, 0);
}

export function codesOf(set: CodePoints): number[] {
  return set.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, at) => from + at));
}

/** Of ASCII. */
function characterClass(set: CodePoints): string {
  const ranges = set.map(([from, to]) => (from === to ? inClass(from) : `${inClass(from)}-${inClass(to)}`));
  return `[${ranges.join('')}]`;
}

function inClass(code: number): string {
  const character = String.fromCodePoint(code);
  // `\x` would take letters that follow as more of its digits
  return /[0-9A-Za-z]/.test(character) ? character : inLiteral(code);
}

function inLiteral(code: number): string {
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
}

/** A literal of the grammar for the escape that JSON has. */
function escaped(code: number): string {
  const json = code < 0x7f ? JSON.stringify(String.fromCharCode(code)).slice(1, -1) : inLiteral(code);
  return `"${json.replace(/["\\]/g, '\\$&')}"`;
}

/** Text of JSON with spaces beyond ASCII as escapes, which any grammar lets through. */
export function withEscapedSpaces(json: string): string {
  return Array.from(json, (character) => {
    const code = character.codePointAt(0)!;
    return WIDE_SPACES.some(([from, to]) => from <= code && code <= to) ? inLiteral(code) : character;
  }).join('');
}
