/** Python's `%` on texts (the filter `format`), and dates by strftime. */
import { TemplateFault } from './fault.js';
import { type Arguments, characters, Float, numberOf, repr, str, Tuple, typeName, type Value } from './values.js';

function padded(text: string, flags: string, width: number, sign = ''): string {
  const room = width - characters(text).length - sign.length;
  if (room <= 0) return sign + text;
  if (flags.includes('-')) return sign + text + ' '.repeat(room);
  return flags.includes('0') ? sign + '0'.repeat(room) + text : ' '.repeat(room) + sign + text;
}

function conversion(kind: string, value: Value, flags: string, width: number, precision: number | null): string {
  if (kind === 's' || kind === 'r' || kind === 'a') {
    const whole = kind === 's' ? str(value) : kind === 'r' ? repr(value) : ascii(value);
    const text = precision === null ? whole : characters(whole).slice(0, precision).join('');
    return padded(text, flags.replace('0', ''), width);
  }
  if (kind === 'c') return padded(typeof value === 'number' ? String.fromCodePoint(value) : str(value), '', width);
  const x = numberOf(value);
  if (x === null) throw new TemplateFault(`%${kind} format: a real number is required, not ${typeName(value)}`);
  const sign = x < 0 || Object.is(x, -0) ? '-' : flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '';
  const size = Math.abs(x);
  const base = BASES[kind];
  if (base !== undefined) {
    const digits = Math.trunc(size)
      .toString(base)
      .padStart(precision ?? 0, '0');
    const prefix = base !== 10 && flags.includes('#') ? `0${kind}` : '';
    const shown = kind === 'X' ? digits.toUpperCase() : digits;
    return padded(shown, flags, width, (Math.trunc(size) === 0 && x < 0 ? '' : sign) + prefix);
  }
  switch (kind) {
    case 'f':
    case 'F':
      return padded(fixed(size, precision ?? 6), flags, width, sign);
    case 'e':
    case 'E': {
      const text = size.toExponential(precision ?? 6).replace(/e([+-])(\d)$/, 'e$10$2');
      return padded(kind === 'E' ? text.toUpperCase() : text, flags, width, sign);
    }
    default: {
      const digits = Math.max(precision ?? 6, 1);
      const text = Number(size.toPrecision(digits));
      const exponent = text === 0 ? 0 : Math.floor(Math.log10(text));
      const shown =
        exponent < -4 || exponent >= digits ? text.toExponential().replace(/e([+-])(\d)$/, 'e$10$2') : String(text);
      return padded(kind === 'G' ? shown.toUpperCase() : shown, flags, width, sign);
    }
  }
}

/** Conversions of whole numbers, and their bases. */
const BASES: Readonly<Record<string, number>> = { d: 10, i: 10, u: 10, x: 16, X: 16, o: 8, b: 2 };

/** repr() with all but ASCII escaped. */
function ascii(value: Value): string {
  return repr(value).replace(/[^ -~]/gu, (c) => {
    const code = c.codePointAt(0)!;
    if (code < 256) return `\\x${code.toString(16).padStart(2, '0')}`;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
  });
}

const DIRECTIVE = /%(?:\((\w+)\))?([-+ 0#]{0,5})(\*|\d{1,4})?(?:\.(\*|\d{1,3}))?([a-zA-Z%])/g;

/** text % value. @throws TemplateFault for too few or too many arguments, a type that does not fit, or an unknown directive */
export function formatPercent(text: string, value: Value): string {
  const list = value instanceof Tuple ? value.items : [value];
  let next = 0;
  const out = text.replace(
    DIRECTIVE,
    (_all, name: string | undefined, flags: string, wide?: string, precise?: string, kind: string = '') => {
      if (kind === '%') return '%';
      if (!'srcadiuxXofFeEgG'.includes(kind)) throw new TemplateFault(`unsupported format character '${kind}'`);
      // a star is a number among the arguments, a negative width one that fills on the right
      const starred = (size: string | undefined): number | null => {
        if (size !== '*') return size === undefined ? null : Number(size);
        const own = list[next++];
        if (typeof own === 'number' && Math.abs(own) < 10_000) return own;
        throw new TemplateFault('* wants int');
      };
      const width = starred(wide) ?? 0;
      const precision = starred(precise);
      let item: Value | undefined;
      if (name !== undefined) {
        if (!(value instanceof Map)) throw new TemplateFault('format requires a mapping');
        item = value.get(name);
        if (item === undefined) throw new TemplateFault(`no value '${name}' to format`);
      } else {
        item = list[next++];
        if (item === undefined) throw new TemplateFault('not enough arguments for format string');
      }
      return conversion(kind, item, width < 0 ? `${flags}-` : flags, Math.abs(width), precision);
    },
  );
  if (next < list.length && !(value instanceof Map))
    throw new TemplateFault('not all arguments converted during string formatting');
  return out;
}

/** One field of str.format: fill and side, sign, base, zero, width, commas, precision, kind. */
const SPEC = /^(?:([^]?)([<>^=]))?([-+ ]?)(#?)(0?)(\d{1,4})?([,_]?)(?:\.(\d{1,3}))?([a-zA-Z%]?)$/u;

/** Kinds of fields by the type of their value: Python refuses the others. */
function refuseKind(kind: string, value: Value): void {
  const fit = typeof value === 'number' || typeof value === 'boolean' ? 'bcdoxXneEfFgG%' : value instanceof Float ? 'eEfFgGn%' : 's'; // prettier-ignore
  if (kind !== '' && !fit.includes(kind))
    throw new TemplateFault(`Unknown format code '${kind}' for object of type '${typeName(value)}'`);
  if (kind === 'n') throw new TemplateFault(`the format code 'n' is not supported`);
}

function braceField(value: Value, spec: string): string {
  const found = SPEC.exec(spec);
  if (!found) throw new TemplateFault(`Invalid format specifier '${spec}'`);
  const [, fill = '', side, sign = '', base = '', zero = '', width = '0', commas = '', precision, kind = ''] = found;
  refuseKind(kind, value);
  const x = numberOf(value);
  let text: string;
  if (kind === '' && precision === undefined)
    text = x !== null && sign === '+' && x >= 0 ? `+${str(value)}` : str(value);
  else if (kind === '%') text = `${fixed((x ?? 0) * 100, Number(precision ?? 6))}%`;
  else {
    const digits = precision === undefined ? null : Number(precision);
    text = conversion(kind === '' ? (x === null ? 's' : 'g') : kind, value, sign + base, 0, digits);
  }
  if (commas) text = text.replace(/\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, commas));
  const room = Math.max(0, Number(width) - characters(text).length);
  const pad = fill || (zero ? '0' : ' ');
  const at = side ?? (x === null ? '<' : '>');
  const before = at === '<' ? 0 : at === '>' ? room : room >> 1;
  if (((zero && !side) || side === '=') && /^[-+ ]/.test(text)) return text[0]! + pad.repeat(room) + text.slice(1);
  return pad.repeat(before) + text + pad.repeat(room - before);
}

/** The value of a field: an argument by position or by name, then items of it. Attributes are refused, as by the sandbox. */
function fieldValue(path: string, argument: (name: string) => Value | undefined): Value {
  const [, name, rest] = /^(\w*)((?:\[[^\]]+\])*)$/.exec(path) ?? [];
  if (name === undefined) throw new TemplateFault(`the field '${path}' of format() is not supported`);
  let value: Value | undefined = argument(name);
  if (value === undefined) throw new TemplateFault(`format() has no argument for the field '${name}'`);
  for (const [, key = ''] of rest!.matchAll(/\[([^\]]+)\]/g)) {
    const at = /^\d+$/.test(key) ? Number(key) : key;
    const items: Value | readonly Value[] = value instanceof Tuple ? value.items : value;
    const own: Value | undefined = items instanceof Map ? items.get(at) : Array.isArray(items) ? (items as Value[])[Number(at)] : undefined; // prettier-ignore
    if (own === undefined) throw new TemplateFault(`format() finds nothing at '${path}'`);
    value = own;
  }
  return value;
}

/** text.format(…): fields by position or by name, with items of them. @throws TemplateFault for a wrong field */
export function formatBraces(text: string, { positional, named }: Arguments): string {
  let next = 0;
  const argument = (name: string): Value | undefined =>
    name === '' || /^\d+$/.test(name) ? positional[name === '' ? next++ : Number(name)] : named.get(name);
  return text.replace(/\{\{|\}\}|\{((?:[^{}]|\{[^{}]*\})*)\}|[{}]/g, (all, field: string | undefined) => {
    if (all === '{{' || all === '}}') return all[0]!;
    if (field === undefined) throw new TemplateFault(`Single '${all}' encountered in format string`);
    const [, path = '', how, spec = ''] = /^([^!:]*)(?:!([rsa]))?(?::([^]*))?$/.exec(field) ?? [];
    const value = fieldValue(path, argument);
    const filled = spec.replace(/\{([^{}]*)\}/g, (_, inner: string) => str(fieldValue(inner, argument)));
    if (how === undefined) return braceField(value, filled);
    return braceField(how === 's' ? str(value) : how === 'r' ? repr(value) : ascii(value), filled);
  });
}

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = [
  ...['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October'],
  ...['November', 'December'],
];

function dayOfYear(date: Date): number {
  const start = Date.UTC(date.getFullYear(), 0, 1);
  return (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - start) / 86_400_000 + 1;
}

/** Year and week by ISO 8601: weeks begin on Monday, the first has the year's first Thursday. */
function isoWeek(date: Date): { year: number; week: number } {
  const day = new Date(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()));
  day.setUTCDate(day.getUTCDate() + 4 - (day.getUTCDay() || 7));
  const year = day.getUTCFullYear();
  return { year, week: Math.ceil(((day.getTime() - Date.UTC(year, 0, 1)) / 86_400_000 + 1) / 7) };
}

/** A number of a date and how many digits it has at least; a text as it is. */
function dateField(directive: string, d: Date): readonly [number | string, number] | null {
  const week = (first: number): number => Math.floor((dayOfYear(d) + 6 - ((d.getDay() - first + 7) % 7)) / 7);
  switch (directive) {
    case 'Y':
      return [d.getFullYear(), 4];
    case 'y':
      return [d.getFullYear() % 100, 2];
    case 'C':
      return [Math.floor(d.getFullYear() / 100), 2];
    case 'm':
      return [d.getMonth() + 1, 2];
    case 'd':
      return [d.getDate(), 2];
    case 'e':
      return [String(d.getDate()).padStart(2), 0];
    case 'H':
      return [d.getHours(), 2];
    case 'I':
      return [d.getHours() % 12 || 12, 2];
    case 'M':
      return [d.getMinutes(), 2];
    case 'S':
      return [d.getSeconds(), 2];
    case 'f':
      return [d.getMilliseconds() * 1000, 6];
    case 'j':
      return [dayOfYear(d), 3];
    case 'u':
      return [d.getDay() || 7, 1];
    case 'w':
      return [d.getDay(), 1];
    case 'U':
      return [week(0), 2];
    case 'W':
      return [week(1), 2];
    case 'V':
      return [isoWeek(d).week, 2];
    case 'G':
      return [isoWeek(d).year, 4];
    case 's':
      return [Math.floor(d.getTime() / 1000), 1];
    case 'A':
      return [DAYS[d.getDay()]!, 0];
    case 'a':
      return [DAYS[d.getDay()]!.slice(0, 3), 0];
    case 'B':
      return [MONTHS[d.getMonth()]!, 0];
    case 'b':
    case 'h':
      return [MONTHS[d.getMonth()]!.slice(0, 3), 0];
    case 'p':
      return [d.getHours() < 12 ? 'AM' : 'PM', 0];
    case 'z':
    case 'Z':
      return ['', 0]; // the date has no time zone, as datetime.now() has none
    case 'n':
      return ['\n', 0];
    case 't':
      return ['\t', 0];
    case '%':
      return ['%', 0];
    default:
      return null;
  }
}

const SHORTHANDS: Readonly<Record<string, string>> = {
  D: '%m/%d/%y',
  F: '%Y-%m-%d',
  T: '%H:%M:%S',
  R: '%H:%M',
  r: '%I:%M:%S %p',
  c: '%a %b %e %H:%M:%S %Y',
  x: '%m/%d/%y',
  X: '%H:%M:%S',
};

/** datetime.strftime in the C locale, with glibc's flags `-` (no padding), `_` (spaces), `0`, `^` (capitals). An unknown directive stays as it is. */
export function strftime(format: string, date: Date): string {
  return format.replace(/%([-_0^]?)([a-zA-Z%])/g, (all, flag: string, directive: string) => {
    const whole = SHORTHANDS[directive];
    if (whole !== undefined) return strftime(whole, date);
    const field = dateField(directive, date);
    if (field === null) return all;
    const [value, digits] = field;
    if (typeof value === 'string') return flag === '^' ? value.toUpperCase() : flag === '-' ? value.trimStart() : value;
    return flag === '-' ? String(value) : String(value).padStart(digits, flag === '_' ? ' ' : '0');
  });
}

/** A number with digits after the point, halves to even as in Python; toFixed rounds them up. */
function fixed(value: number, digits: number): string {
  const text = value.toFixed(digits);
  const exact = Math.abs(value).toFixed(Math.min(digits + 60, 100));
  const half = /^50*$/.test(exact.slice(exact.length - Math.min(60, 100 - digits)));
  if (!half || !Number.isFinite(value)) return text;
  const down = exact.slice(0, exact.length - Math.min(60, 100 - digits)).replace(/\.$/, '');
  return /[02468]$/.test(down) ? `${value < 0 ? '-' : ''}${down}` : text;
}

/** Python's round() to digits after the point, halves to even, as a float. */
export function roundHalfEven(value: number, digits: number): Float {
  const text = Math.abs(value).toFixed(Math.min(Math.max(digits, 0) + 20, 100));
  const at = text.indexOf('.') + 1 + digits;
  const scale = 10 ** digits;
  const rest = `0.${text.slice(at)}`;
  if (digits >= 0 && Number(rest) === 0.5 && /^0\.50*$/.test(rest)) {
    const down = Math.floor(Math.abs(value) * scale);
    return new Float((Math.sign(value) * (down % 2 === 0 ? down : down + 1)) / scale);
  }
  return new Float(digits >= 0 ? Number(value.toFixed(digits)) : Math.round(value * scale) / scale);
}
