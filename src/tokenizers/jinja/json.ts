/** The filter tojson: Python's json.dumps as transformers calls it, with ensure_ascii False and keys in their order. */
import { TemplateFault } from './fault.js';
import { compare, Float, floatText, Tuple, typeName, type Value, View } from './values.js';

export interface JsonOptions {
  ensure_ascii: boolean;
  /** Spaces of one level, or the text itself; null for one line. */
  indent: string | null;
  separators: readonly [string, string];
  sort_keys: boolean;
}

function text(value: string, ascii: boolean): string {
  // JSON.stringify escapes lone surrogates and the control characters as Python does, but for DEL, which neither escapes
  const quoted = JSON.stringify(value);
  return ascii
    ? quoted.replace(/[\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
    : quoted;
}

function number(value: Value): string | null {
  if (typeof value === 'number') return String(value);
  if (!(value instanceof Float)) return null;
  if (Number.isNaN(value.value)) return 'NaN';
  if (!Number.isFinite(value.value)) return value.value > 0 ? 'Infinity' : '-Infinity';
  return floatText(value.value);
}

function key(value: Value): string {
  if (typeof value === 'string') return value;
  if (value === null) return 'null';
  if (typeof value === 'boolean') return String(value);
  const digits = number(value);
  if (digits === null) throw new TemplateFault(`keys must be str, int, float, bool or None, not ${typeName(value)}`);
  return digits;
}

/** @throws TemplateFault for values that JSON has no form for */
export function json(value: Value, options: JsonOptions, depth = 0): string {
  if (value === null) return 'null';
  if (typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return text(value, options.ensure_ascii);
  const digits = number(value);
  if (digits !== null) return digits;
  const [between, colon] = options.separators;
  const wrap = (open: string, items: string[], close: string): string => {
    if (items.length === 0 || options.indent === null) return `${open}${items.join(between)}${close}`;
    const line = (level: number): string => `\n${options.indent!.repeat(level)}`;
    return `${open}${line(depth + 1)}${items.join(between + line(depth + 1))}${line(depth)}${close}`;
  };
  if ((Array.isArray(value) && !(value instanceof View)) || value instanceof Tuple) {
    const items = Array.isArray(value) ? value : value.items;
    return wrap(
      '[',
      items.map((item) => json(item, options, depth + 1)),
      ']',
    );
  }
  if (value instanceof Map) {
    let entries = [...value];
    if (options.sort_keys) entries = entries.sort(([a], [b]) => compare(a, b));
    return wrap(
      '{',
      entries.map(
        ([name, item]) => `${text(key(name), options.ensure_ascii)}${colon}${json(item, options, depth + 1)}`,
      ),
      '}',
    );
  }
  throw new TemplateFault(`Object of type ${typeName(value)} is not JSON serializable`);
}
