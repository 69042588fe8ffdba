/** Values of a template as Python has them, and how Python writes them as text. */
import { TemplateFault } from './fault.js';
import type { Scope } from './scope.js';
import type { ForNode, Parameter, Statement } from './syntax.js';

/** A float of Python: 3.0 is written so, where the integer 3 is a plain number. */
export class Float {
  constructor(readonly value: number) {}
}

/** A tuple of Python: a list that is written in round brackets. */
export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** What range() and the methods of dictionaries give: items that are gone through like those of a list, and written otherwise. */
export class View extends Array<Value> {
  /** What is made of it is a plain list. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** @param shown its text; that of its items in brackets after the type's name where it is not given */
  static of_type(type: string, items: readonly Value[], shown?: string): View {
    const view = new View();
    // not push(...items): there may be more than a call may have arguments
    for (const item of items) view.push(item);
    Object.defineProperties(view, { type: { value: type }, shown: { value: shown } });
    return view;
  }
  /** What range(start, stop, step) gives. */
  static range(start: number, stop: number, step: number): View {
    const count = Math.max(0, Math.ceil((stop - start) / step));
    const items = Array.from({ length: count }, (_, i) => start + i * step);
    const view = View.of_type('range', items, `range(${[start, stop, ...(step === 1 ? [] : [step])].join(', ')})`);
    Object.defineProperty(view, 'bounds', { value: [start, step] });
    return view;
  }
  /** A part of a range, which is a range; null of another view, which has no parts. */
  part(from: number, to: number, step: number): View | null {
    if (!this.bounds) return null;
    const [start, each] = this.bounds;
    return View.range(start + from * each, start + to * each, each * step);
  }
  declare readonly type: string;
  declare readonly shown: string | undefined;
  /** Start and step of a range. */
  declare private readonly bounds: readonly [number, number] | undefined;
}

/** A tuple whose items have names, too: what groupby gives. */
export class NamedTuple extends Tuple {
  constructor(
    items: readonly Value[],
    readonly names: readonly string[],
  ) {
    super(items);
  }
}

/** What a name or an attribute gives that is not there: empty as text, false, nothing to go through. */
export class Undefined {
  constructor(readonly what: string) {}
}

/** What namespace() makes: attributes that a template may set. */
export class Namespace {
  constructor(readonly values: Map<string, Value> = new Map()) {}
}

/** Arguments of a call, by position and by name. */
export interface Arguments {
  positional: Value[];
  named: Map<string, Value>;
}

/** A function, a macro, or a method of a value. */
export class Callable {
  constructor(
    readonly name: string,
    readonly call: (args: Arguments) => Value,
  ) {}
}

/** A macro, or the block of a call: its parameters and body, and the scope that it was written in. */
export class MacroValue {
  constructor(
    readonly name: string,
    readonly parameters: readonly Parameter[],
    readonly body: readonly Statement[],
    readonly scope: Scope,
  ) {}

  /** Whether the body reads a name: a macro takes more arguments than its parameters only where it asks for them. */
  uses(name: string): boolean {
    return mentions(this.body, name);
  }
}

function mentions(node: unknown, name: string): boolean {
  if (typeof node !== 'object' || node === null) return false;
  if (Array.isArray(node)) return node.some((item) => mentions(item, name));
  const own = node as { type?: unknown; name?: unknown };
  return (own.type === 'name' && own.name === name) || Object.values(node).some((item) => mentions(item, name));
}

/** `loop` in a loop: its counts as attributes; a recursive one can be called. */
export class LoopValue extends Namespace {
  constructor(
    readonly node: ForNode,
    readonly scope: Scope,
    readonly depth: number,
  ) {
    super();
  }
}

export type Value =
  | null
  | boolean
  | number
  | string
  | Float
  | Tuple
  | Undefined
  | Namespace
  | Callable
  | MacroValue
  | Value[]
  | Map<Value, Value>;

/** A value of JavaScript as a template sees it. @throws TemplateFault for what has no counterpart (functions, symbols) */
export function toValue(input: unknown): Value {
  switch (typeof input) {
    case 'string':
    case 'boolean':
      return input;
    case 'number':
      return Number.isInteger(input) ? input : new Float(input);
    case 'undefined':
      return new Undefined('a value');
    case 'object': {
      if (input === null) return null;
      if (Array.isArray(input)) return input.map(toValue);
      return new Map(
        Object.entries(input).flatMap(([key, value]) => (value === undefined ? [] : [[key, toValue(value)]])),
      );
    }
    default:
      throw new TemplateFault(`a value of JavaScript's type ${typeof input} cannot be given to a template`);
  }
}

/** The name of a value's type in Python. */
export function typeName(value: Value): string {
  if (value === null) return 'NoneType';
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof Float) return 'float';
  if (value instanceof Tuple) return 'tuple';
  if (value instanceof Namespace) return 'Namespace';
  if (value instanceof Callable) return 'function';
  if (value instanceof MacroValue) return 'Macro';
  if (value instanceof Map) return 'dict';
  if (value instanceof View) return value.type;
  if (Array.isArray(value)) return 'list';
  return { string: 'str', number: 'int', boolean: 'bool' }[typeof value as 'string' | 'number' | 'boolean'];
}

/** The characters of a text as Python counts them: code points. */
export const characters = (text: string): string[] => Array.from(text);

/** Python's bool(). */
export function truth(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (typeof value === 'boolean') return value;
  if (typeof value === 'number') return value !== 0;
  if (typeof value === 'string') return value !== '';
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Tuple) return value.items.length > 0;
  if (value instanceof Map) return value.size > 0;
  return Array.isArray(value) ? value.length > 0 : true;
}

/** Python's iter(): items of lists and tuples, keys of dictionaries, characters of texts. @throws TemplateFault for other values */
export function iterate(value: Value): Value[] {
  if (Array.isArray(value)) return value;
  if (value instanceof Tuple) return [...value.items];
  if (value instanceof Map) return [...value.keys()];
  if (typeof value === 'string') return characters(value);
  if (value instanceof Undefined) return [];
  throw new TemplateFault(`'${typeName(value)}' object is not iterable`);
}

/** The number of an integer, a float or a boolean; null for other values. */
export function numberOf(value: Value): number | null {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return value ? 1 : 0;
  return value instanceof Float ? value.value : null;
}

/** Python's ==. */
export function equal(a: Value, b: Value): boolean {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null || y !== null) return x !== null && y !== null && x === y;
  if (a instanceof Undefined) return b instanceof Undefined;
  if (Array.isArray(a)) return Array.isArray(b) && sameItems(a, b);
  if (a instanceof Tuple) return b instanceof Tuple && sameItems(a.items, b.items);
  if (a instanceof Map) {
    if (!(b instanceof Map) || a.size !== b.size) return false;
    return [...a].every(([key, value]) => b.has(key) && equal(value, b.get(key)!));
  }
  return a === b;
}

function sameItems(a: readonly Value[], b: readonly Value[]): boolean {
  return a.length === b.length && a.every((item, i) => equal(item, b[i]!));
}

/** Python's <, as a number below, at or above 0. @throws TemplateFault for values without an order */
export function compare(a: Value, b: Value, operator = '<'): number {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return x - y;
  if (typeof a === 'string' && typeof b === 'string') return compareTexts(a, b);
  const [list, other] = [a instanceof Tuple ? a.items : a, b instanceof Tuple ? b.items : b];
  if (Array.isArray(list) && Array.isArray(other) && typeName(a) === typeName(b)) {
    for (let i = 0; i < Math.min(list.length, other.length); i++)
      if (!equal(list[i] as Value, other[i] as Value)) return compare(list[i] as Value, other[i] as Value, operator);
    return list.length - other.length;
  }
  throw new TemplateFault(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

/** By code points, as Python does; JavaScript's < goes by halves of surrogate pairs. */
function compareTexts(a: string, b: string): number {
  const [x, y] = [characters(a), characters(b)];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const difference = x[i]!.codePointAt(0)! - y[i]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return x.length - y.length;
}

/** A text that exponents are written in as Python does: at least two digits, from 1e16 and below 1e-4. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e16 || size < 1e-4)) {
    return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  }
  const text = String(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** Python's str(). */
export function str(value: Value): string {
  if (typeof value === 'string') return value;
  return value instanceof Undefined ? '' : repr(value);
}

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** Whether repr() writes a character as it is. */
export function isPrintable(c: string): boolean {
  return c === ' ' || !/[\p{Cc}\p{Zl}\p{Zp}\p{Zs}\p{Cf}\p{Cn}\p{Co}\p{Cs}]/u.test(c);
}

function textRepr(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let out = quote;
  for (const c of text) {
    const code = c.codePointAt(0)!;
    if (c === quote) out += `\\${c}`;
    else if (ESCAPES[c] !== undefined) out += ESCAPES[c];
    else if (code < 32 || (code >= 127 && code < 161) || code === 173)
      out += `\\x${code.toString(16).padStart(2, '0')}`;
    else if (!isPrintable(c))
      out += code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
    else out += c;
  }
  return out + quote;
}

/** Python's repr(). */
export function repr(value: Value): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return textRepr(value);
  if (value instanceof Float) return floatText(value.value);
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof LoopValue)
    return `<LoopContext ${repr(value.values.get('index') ?? 0)}/${repr(value.values.get('length') ?? 0)}>`;
  if (value instanceof Namespace) return `<Namespace ${repr(new Map(value.values))}>`;
  if (value instanceof Callable) return `<function ${value.name}>`;
  if (value instanceof MacroValue) return `<Macro '${value.name}'>`;
  if (value instanceof Map) return `{${[...value].map(([k, v]) => `${repr(k)}: ${repr(v)}`).join(', ')}}`;
  if (value instanceof View) return value.shown ?? `${value.type}([${value.map(repr).join(', ')}])`;
  if (Array.isArray(value)) return `[${value.map(repr).join(', ')}]`;
  return `(${value.items.map(repr).join(', ')}${value.items.length === 1 ? ',' : ''})`;
}
