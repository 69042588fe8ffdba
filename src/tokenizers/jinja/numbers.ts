/** Numbers that texts stand for, as Python's int() and float() read them. */
import { TemplateFault } from './fault.js';
import { Float, numberOf, Undefined, type Value } from './values.js';

/** Digits of any script as ASCII has them: each script has its ten in a row, from one that ends in 0 or 6 … */
function asciiDigits(text: string): string {
  return text.replace(/\p{Nd}/gu, (c) => {
    const code = c.codePointAt(0)!;
    let zero = code;
    while (zero > code - 9 && /\p{Nd}/u.test(String.fromCodePoint(zero - 1))) zero--;
    return String(code - zero);
  });
}

export function toInteger(value: Value, otherwise: Value, base: number): Value {
  refuseUndefined(value);
  if (typeof value === 'string') {
    const text = asciiDigits(value.trim()).replace(/(?<=\d)_(?=\d)/g, '');
    if (base === 10 && /^[-+]?\d+$/.test(text)) return Number.parseInt(text, 10);
    if (base !== 10 && /^[-+]?(0[xob])?[0-9a-f]+$/i.test(text))
      return Number.parseInt(text.replace(/0[xob]/i, ''), base);
    const float = toFloat(value, null);
    return float instanceof Float && Number.isFinite(float.value) ? Math.trunc(float.value) : otherwise;
  }
  const x = numberOf(value);
  return x === null || !Number.isFinite(x) ? otherwise : Math.trunc(x);
}

function refuseUndefined(value: Value): void {
  if (value instanceof Undefined) throw new TemplateFault(`${value.what} is undefined`);
}

export function toFloat(value: Value, otherwise: Value): Value {
  refuseUndefined(value);
  if (typeof value === 'string') {
    const text = asciiDigits(value.trim())
      .replace(/(?<=\d)_(?=\d)/g, '')
      .toLowerCase();
    if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/.test(text)) return new Float(Number(text));
    if (/^[-+]?inf(inity)?$/.test(text)) return new Float(text.startsWith('-') ? -Infinity : Infinity);
    return text === 'nan' ? new Float(NaN) : otherwise;
  }
  const x = numberOf(value);
  return x === null ? otherwise : new Float(x);
}
