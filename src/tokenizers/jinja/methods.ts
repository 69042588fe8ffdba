/** Methods of Python's texts, lists and dictionaries that templates call; those that change a value are refused, as in transformers' sandbox. */
import { bind } from './arguments.js';
import { TemplateFault } from './fault.js';
import { formatBraces } from './format.js';
import { found, type Method, TEXT_METHODS } from './text_methods.js';
import { type Arguments, Callable, equal, Float, iterate, numberOf, str, Tuple, typeName, type Value, View } from './values.js'; // prettier-ignore

const LIST: Readonly<Record<string, Method<readonly Value[]>>> = {
  count: [['value'], (own, [value]) => own.filter((item) => equal(item, value!)).length],
  index: [['value'], (own, [value]) => found(own.findIndex((item) => equal(item, value!)))],
  copy: [[], (own) => [...own]],
};

const DICT: Readonly<Record<string, Method<Map<Value, Value>>>> = {
  get: [
    ['key', ['default', null]],
    (own, [key, otherwise]) => {
      const found = own.get(key!);
      return found === undefined ? otherwise! : found;
    },
  ],
  keys: [[], (own) => View.of_type('dict_keys', [...own.keys()])],
  values: [[], (own) => View.of_type('dict_values', [...own.values()])],
  items: [
    [],
    (own) =>
      View.of_type(
        'dict_items',
        [...own].map((entry) => new Tuple(entry)),
      ),
  ],
  copy: [[], (own) => new Map(own)],
  fromkeys: [
    ['iterable', ['value', null]],
    (_own, [keys, value]) => new Map(iterate(keys!).map((key): [Value, Value] => [key, value!])),
  ],
};

/** Of whole numbers, truths among them. */
const INTEGER: Readonly<Record<string, Method<number>>> = {
  bit_length: [[], (own) => (own === 0 ? 0 : Math.abs(own).toString(2).length)],
  bit_count: [[], (own) => Math.abs(own).toString(2).replaceAll('0', '').length],
  conjugate: [[], (own) => own],
  as_integer_ratio: [[], (own) => new Tuple([own, 1])],
  is_integer: [[], () => true],
};

const FLOAT: Readonly<Record<string, Method<Float>>> = {
  conjugate: [[], (own) => own],
  is_integer: [[], (own) => Number.isInteger(own.value)],
};

/** What a number has that is no method. */
export function partOfNumber(value: Value, name: Value): Value | undefined {
  const x = typeof name === 'string' ? numberOf(value) : null;
  if (x === null) return undefined;
  const float = value instanceof Float;
  if (name === 'real') return float ? value : x;
  if (name === 'imag') return float ? new Float(0) : 0;
  if (float) return undefined;
  return name === 'numerator' ? x : name === 'denominator' ? 1 : undefined;
}

/** Methods that change their value: the sandbox of transformers refuses them. */
const CHANGING = new Set([
  ...['append', 'extend', 'insert', 'pop', 'remove', 'clear', 'reverse', 'sort'],
  ...['update', 'setdefault', 'popitem', '__setitem__'],
]);

function bound<T>(methods: Readonly<Record<string, Method<T>>>, own: T, name: string): Callable | null {
  if (!Object.hasOwn(methods, name)) return null;
  const [parameters, run] = methods[name]!;
  return new Callable(name, (args: Arguments) => run(own, bind(name, args, parameters)));
}

/** The method of a value; null where it has none of that name. @throws TemplateFault for one that would change it */
export function methodOf(value: Value, name: string): Callable | null {
  if (typeof value === 'string' && name === 'format') return new Callable(name, (args) => formatBraces(value, args));
  if (typeof value === 'string' && name === 'format_map')
    return new Callable(name, (args) => {
      const map = bind(name, args, ['mapping'])[0]!;
      if (!(map instanceof Map)) throw new TemplateFault('format_map() expects a dictionary');
      return formatBraces(value, { positional: [], named: new Map([...map].map(([key, own]) => [str(key), own])) });
    });
  if (typeof value === 'string') return bound(TEXT_METHODS, value, name);
  if (typeof value === 'number' || typeof value === 'boolean') return bound(INTEGER, Number(value), name);
  if (value instanceof Float) return bound(FLOAT, value, name);
  const list = value instanceof Tuple ? value.items : value;
  const container = Array.isArray(list) || value instanceof Map;
  if (container && CHANGING.has(name) && !(value instanceof Map && (name === 'sort' || name === 'reverse')))
    throw new TemplateFault(`access to attribute '${name}' of '${typeName(value)}' object is unsafe.`);
  if (value instanceof Map) return bound(DICT, value, name);
  return Array.isArray(list) ? bound(LIST, list as readonly Value[], name) : null;
}
