/**
 * What a message cites: values from files, users and the network, quoted and cut. A name from a file may hold control
 * characters, which a terminal obeys, may be of any length, and a value may be nested deeper than a stack is.
 */

/** Most characters that a message cites of one value. */
const LONGEST = 80;
/** Deepest nesting that is shown; what lies below is '…'. */
const DEEPEST = 3;
/** Most elements of a list or an object that are looked at. */
const MOST = 20;

/**
 * A value as a message shows it: texts in double quotes with control characters escaped, lists and objects as JSON,
 * everything cut. Never throws.
 * @param longest most characters
 * @example
 * quote('a\u001b[2J'); // '"a\\u001b[2J"'
 * quote([1, [2]]); // '[1,[2]]'
 */
export function quote(value: unknown, longest = LONGEST): string {
  return cut(show(value, 0, longest), longest);
}

/** The text without quotes and with control characters escaped, cut: for names that read better bare. */
export function plain(text: string, longest = LONGEST): string {
  return cut(escapeControls(text.slice(0, longest + 1)), longest);
}

function cut(text: string, longest: number): string {
  return text.length <= longest ? text : `${text.slice(0, longest - 1)}…`;
}

/** Control characters, those that only format (directional marks among them), separators of lines, and halves of pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** What a terminal would obey or not show, as \uXXXX. */
function escapeControls(text: string): string {
  return text.replace(UNPRINTABLE, (c) =>
    Array.from({ length: c.length }, (_, at) => `\\u${c.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  );
}

function quoted(text: string, longest: number): string {
  return escapeControls(JSON.stringify(text.slice(0, longest + 1)));
}

function show(value: unknown, depth: number, longest: number): string {
  switch (typeof value) {
    case 'string':
      return quoted(value, longest);
    case 'bigint':
      return `${value}n`;
    case 'function':
      return value.name ? `function ${plain(value.name, longest)}` : 'a function';
    case 'symbol':
      return 'a symbol';
    case 'object':
      break;
    default:
      return String(value);
  }
  if (value === null) return 'null';
  try {
    return showObject(value, depth, longest);
  } catch {
    return 'an object'; // a getter or a proxy that throws
  }
}

function showObject(value: object, depth: number, longest: number): string {
  const deeper = (inner: unknown): string => (depth >= DEEPEST ? '…' : show(inner, depth + 1, longest));
  if (Array.isArray(value)) return `[${list(value.slice(0, MOST).map(deeper), value.length)}]`;
  if (value instanceof RegExp) return plain(String(value), longest);
  if (value instanceof Error) return `${value.name}: ${plain(value.message, longest)}`;
  const { rank, dtype, shape } = value as { rank?: unknown; dtype?: unknown; shape?: unknown };
  if (typeof rank === 'number' && typeof dtype === 'string' && Array.isArray(shape)) {
    return `a tensor of shape [${shape.join(', ')}]`;
  }
  const prototype = Object.getPrototypeOf(value) as { constructor?: { name?: string } } | null;
  const name = prototype?.constructor?.name ?? 'Object';
  if (ArrayBuffer.isView(value)) {
    const items = Array.from((value as Int32Array).slice?.(0, MOST) ?? []);
    return `${name}[${list(items.map(deeper), (value as Int32Array).length ?? 0)}]`;
  }
  if (name !== 'Object') return `a ${plain(name, longest)}`;
  const keys = Object.keys(value);
  const shown = keys
    .slice(0, MOST)
    .map((key) => `${quoted(key, longest)}:${deeper((value as Record<string, unknown>)[key])}`);
  return `{${list(shown, keys.length)}}`;
}

function list(shown: readonly string[], length: number): string {
  return shown.join(',') + (length > shown.length ? ',…' : '');
}
