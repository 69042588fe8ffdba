/** Filters that lay text out: lines of a width, sizes of files, attributes of XML. */
import { TemplateFault } from './fault.js';
import { LINE_END } from './text_methods.js';
import { characters, numberOf, str, typeName, Undefined, type Value } from './values.js';

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&#39;',
  '"': '&#34;',
};

/** A text as HTML and XML write it. */
export function escaped(text: string): string {
  return text.replace(/[&<>'"]/g, (c) => ENTITIES[c]!);
}

/** Attributes of an element, without those that are none or undefined. @throws TemplateFault for a name that is none */
export function attributes(value: Value, space: boolean): string {
  if (!(value instanceof Map)) throw new TemplateFault(`xmlattr expects a dictionary, not ${typeName(value)}`);
  const items = [...value].flatMap(([key, own]) => {
    if (own === null || own instanceof Undefined) return [];
    const name = str(key);
    if (/[\s/>=]/.test(name)) throw new TemplateFault(`Invalid character in attribute name: '${name}'`);
    return [`${escaped(name)}="${escaped(str(own))}"`];
  });
  return (space && items.length > 0 ? ' ' : '') + items.join(' ');
}

/** A number of bytes in words. */
export function fileSize(value: Value, binary: boolean): string {
  const bytes =
    typeof value === 'string' && /^\s*[-+]?[\d.]+(e[-+]?\d+)?\s*$/i.test(value) ? Number(value) : numberOf(value);
  if (bytes === null || Number.isNaN(bytes)) throw new TemplateFault(`could not convert to float: ${str(value)}`);
  const base = binary ? 1024 : 1000;
  const prefixes = [...'kMGTPEZY'].map((letter) => (binary ? `${letter.toUpperCase()}iB` : `${letter}B`));
  if (bytes === 1) return '1 Byte';
  if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
  let at = 0;
  while (at < prefixes.length - 1 && bytes >= base ** (at + 2)) at++;
  return `${((base * bytes) / base ** (at + 2)).toFixed(1)} ${prefixes[at]!}`;
}

/** Pieces of a line as Python's textwrap takes them apart: words, spaces, and at hyphens within words where asked for. */
function pieces(line: string, hyphens: boolean): string[] {
  if (!hyphens) return line.split(/([\t\n\v\f\r ]+)/).filter((piece) => piece !== '');
  const words = line.match(/[\t\n\v\f\r ]+|[^\t\n\v\f\r ]+/g) ?? [];
  return words.flatMap((word) =>
    /^\s/.test(word)
      ? [word]
      : // after a hyphen between letters, and around two hyphens or more between words
        word.split(
          /(?<=[\p{L}\p{N}_!"'&.,?]{1}[\p{L}_]-)(?=[\p{L}_])|(?<=[\p{L}\p{N}_!"'&.,?])(?=-{2,}[\p{L}\p{N}_])|(?<=-{2,})(?=[\p{L}\p{N}_])/u,
        ),
  );
}

const LINE_ENDS = new RegExp(LINE_END);
const ENDS_WITH_ONE = new RegExp(`${LINE_END}$`);

/** Lines of at most so many characters, as Python's textwrap breaks them; lines of the text stay apart. */
export function wrapped(text: string, width: number, breakLong: boolean, hyphens: boolean, end: string): string {
  if (width <= 0) throw new TemplateFault(`invalid width ${width} (must be > 0)`);
  const out: string[] = [];
  for (const line of text.split(LINE_ENDS)) out.push(wrapLine(line, width, breakLong, hyphens).join(end));
  if (ENDS_WITH_ONE.test(text)) out.pop();
  return out.join(end);
}

function wrapLine(line: string, width: number, breakLong: boolean, hyphens: boolean): string[] {
  const left = pieces(line, hyphens).reverse();
  const lines: string[] = [];
  const lengthOf = (piece: string): number => characters(piece).length;
  while (left.length > 0) {
    const own: string[] = [];
    let length = 0;
    // a line but the first begins with no space
    if (/^\s*$/.test(left.at(-1)!) && lines.length > 0) left.pop();
    while (left.length > 0 && length + lengthOf(left.at(-1)!) <= width) {
      length += lengthOf(left.at(-1)!);
      own.push(left.pop()!);
    }
    const next = left.at(-1);
    if (next !== undefined && lengthOf(next) > width) {
      if (breakLong) {
        const room = Math.max(1, width - length);
        const chars = characters(next);
        // a long piece is broken after a hyphen where there is one
        const hyphen = hyphens && chars.length > room ? chars.slice(0, room).lastIndexOf('-') : -1;
        const cut = hyphen > 0 && chars.slice(0, hyphen).some((c) => c !== '-') ? hyphen + 1 : room;
        own.push(chars.slice(0, cut).join(''));
        left[left.length - 1] = chars.slice(cut).join('');
      } else if (own.length === 0) own.push(left.pop()!);
    }
    if (own.length > 0 && /^\s*$/.test(own.at(-1)!)) own.pop();
    if (own.length > 0) lines.push(own.join(''));
  }
  return lines;
}
