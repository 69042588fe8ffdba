/** Operators of expressions, with Python's meaning. */
import { formatPercent } from './format.js';
import { TemplateFault } from './fault.js';
import {
  compare,
  equal,
  Float,
  iterate,
  numberOf,
  str,
  Tuple,
  truth,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js';

function whole(value: number): number {
  if (!Number.isSafeInteger(value)) throw new TemplateFault('an integer beyond 2^53 cannot be computed here');
  return value;
}

function refuse(operator: string, a: Value, b: Value): never {
  const missing = [a, b].find((value) => value instanceof Undefined);
  if (missing) throw new TemplateFault(`${missing.what} is undefined`);
  throw new TemplateFault(`unsupported operand type(s) for ${operator}: '${typeName(a)}' and '${typeName(b)}'`);
}

/** Whether `item` is in a list, a tuple, a text or a dictionary's keys. @throws TemplateFault for what holds nothing */
export function contains(container: Value, item: Value): boolean {
  if (typeof container === 'string') {
    if (typeof item !== 'string')
      throw new TemplateFault(`'in <string>' requires string as left operand, not ${typeName(item)}`);
    return container.includes(item);
  }
  if (!(container instanceof Undefined) && (typeof container !== 'object' || container === null))
    throw new TemplateFault(`argument of type '${typeName(container)}' is not iterable`);
  return iterate(container).some((own) => equal(own, item));
}

function arithmetic(operator: string, a: Value, b: Value): Value {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x === null || y === null) return refuse(operator, a, b);
  const floats = a instanceof Float || b instanceof Float;
  const made = (value: number): Value => (floats ? new Float(value) : whole(value));
  switch (operator) {
    case '+':
      return made(x + y);
    case '-':
      return made(x - y);
    case '*':
      return made(x * y);
    case '**':
      return floats || y < 0 ? new Float(x ** y) : whole(x ** y);
    default:
      if (y === 0) throw new TemplateFault('division by zero');
      if (operator === '/') return new Float(x / y);
      return operator === '//' ? made(Math.floor(x / y)) : made(x - y * Math.floor(x / y));
  }
}

function repeat(value: string | Value[] | Tuple, times: number): Value {
  const count = Math.max(0, times);
  const size = typeof value === 'string' ? value.length : value instanceof Tuple ? value.items.length : value.length;
  if (size * count > 1e7) throw new TemplateFault(`a value repeated ${count} times is too long`);
  if (typeof value === 'string') return value.repeat(count);
  const items = value instanceof Tuple ? value.items : value;
  const out = Array.from({ length: count }, () => items).flat();
  return value instanceof Tuple ? new Tuple(out) : out;
}

/** What can be repeated: views of dictionaries and ranges cannot. */
function isSequence(value: Value): value is string | Value[] | Tuple {
  return typeof value === 'string' || value instanceof Tuple || (Array.isArray(value) && !(value instanceof View));
}

/** a OPERATOR b, but for `and` and `or`. @throws TemplateFault for operands that Python refuses */
export function binary(operator: string, a: Value, b: Value): Value {
  switch (operator) {
    case '==':
      return equal(a, b);
    case '!=':
      return !equal(a, b);
    case '<':
      return compare(a, b, operator) < 0;
    case '<=':
      return compare(a, b, operator) <= 0;
    case '>':
      return compare(a, b, operator) > 0;
    case '>=':
      return compare(a, b, operator) >= 0;
    case 'in':
      return contains(b, a);
    case 'not in':
      return !contains(b, a);
    case '~':
      return str(a) + str(b);
    case '+':
      if (typeof a === 'string' && typeof b === 'string') return a + b;
      if (isSequence(a) && isSequence(b) && Array.isArray(a) && Array.isArray(b)) return [...a, ...b];
      if (a instanceof Tuple && b instanceof Tuple) return new Tuple([...a.items, ...b.items]);
      if (typeof a === 'string' && !(b instanceof Undefined))
        throw new TemplateFault(`can only concatenate str (not "${typeName(b)}") to str`);
      return arithmetic('+', a, b);
    case '%':
      return typeof a === 'string' ? formatPercent(a, b) : arithmetic('%', a, b);
    case '*':
      for (const [value, times] of [
        [a, b],
        [b, a],
      ] as const)
        if (isSequence(value) && typeof times === 'number') return repeat(value, times);
      return arithmetic('*', a, b);
    default:
      return arithmetic(operator, a, b);
  }
}

/** `not`, `-` and `+` before a value. */
export function unary(operator: string, value: Value): Value {
  if (operator === 'not') return !truth(value);
  const x = numberOf(value);
  if (x === null) {
    if (value instanceof Undefined) throw new TemplateFault(`${value.what} is undefined`);
    throw new TemplateFault(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  }
  const signed = operator === '-' ? -x : x;
  return value instanceof Float ? new Float(signed) : signed + 0;
}
