/** Jinja's tests (`x is defined`), as its tests.py has them. */
import { bind } from './arguments.js';
import { TemplateFault } from './fault.js';
import { FILTERS } from './filters.js';
import { binary, contains } from './operators.js';
import { type Arguments, Callable, equal, Float, MacroValue, numberOf, Tuple, typeName, Undefined, type Value, View } from './values.js'; // prettier-ignore

const number = (value: Value, name: string): number => {
  const x = numberOf(value);
  if (x !== null) return x;
  throw new TemplateFault(`the test '${name}' expects a number, not ${typeName(value)}`);
};

/** What Python takes items of by number: views of dictionaries are none. */
const isSequence = (value: Value): boolean =>
  typeof value === 'string' ||
  (Array.isArray(value) && !(value instanceof View && value.type !== 'range')) ||
  value instanceof Map ||
  value instanceof Tuple ||
  value instanceof Undefined;

/** The remainder as Python has it, which has the sign of the divisor. */
const remainder = (a: number, b: number, name: string): number => {
  if (b === 0) throw new TemplateFault(`the test '${name}' cannot divide by zero`);
  return a - b * Math.floor(a / b);
};

const compared =
  (operator: string) =>
  (value: Value, other: Value): boolean =>
    binary(operator, value, other) as boolean;

const ALONE: Readonly<Record<string, (value: Value) => boolean>> = {
  boolean: (value) => typeof value === 'boolean',
  // an undefined value can be called, and says then what is undefined
  callable: (value) => value instanceof Callable || value instanceof MacroValue || value instanceof Undefined,
  defined: (value) => !(value instanceof Undefined),
  escaped: () => false,
  even: (value) => remainder(number(value, 'even'), 2, 'even') === 0,
  false: (value) => value === false,
  filter: (value) => typeof value === 'string' && Object.hasOwn(FILTERS, value),
  float: (value) => value instanceof Float,
  integer: (value) => typeof value === 'number',
  iterable: (value) =>
    typeof value === 'string' ||
    Array.isArray(value) ||
    value instanceof Map ||
    value instanceof Tuple ||
    value instanceof Undefined,
  lower: (value) => typeof value === 'string' && value === value.toLowerCase() && value !== value.toUpperCase(),
  mapping: (value) => value instanceof Map,
  none: (value) => value === null,
  number: (value) => numberOf(value) !== null,
  odd: (value) => remainder(number(value, 'odd'), 2, 'odd') === 1,
  sequence: isSequence,
  string: (value) => typeof value === 'string',
  test: (value) => typeof value === 'string' && isTest(value),
  true: (value) => value === true,
  undefined: (value) => value instanceof Undefined,
  upper: (value) => typeof value === 'string' && value === value.toUpperCase() && value !== value.toLowerCase(),
};

const WITH_ONE: Readonly<Record<string, (value: Value, other: Value) => boolean>> = {
  divisibleby: (value, by) => remainder(number(value, 'divisibleby'), number(by, 'divisibleby'), 'divisibleby') === 0,
  in: (value, container) => contains(container, value),
  sameas: (value, other) =>
    typeof value === 'object' ? value === other : typeof value === typeof other && value === other,
  eq: equal,
  equalto: equal,
  '==': equal,
  ne: (a, b) => !equal(a, b),
  '!=': (a, b) => !equal(a, b),
  ge: compared('>='),
  '>=': compared('>='),
  gt: compared('>'),
  greaterthan: compared('>'),
  '>': compared('>'),
  le: compared('<='),
  '<=': compared('<='),
  lt: compared('<'),
  lessthan: compared('<'),
  '<': compared('<'),
};

function isTest(name: string): boolean {
  return Object.hasOwn(ALONE, name) || Object.hasOwn(WITH_ONE, name);
}

/** Whether a value passes a test. @throws TemplateFault for an unknown test, by name */
export function passes(name: string, value: Value, args: Arguments): boolean {
  if (Object.hasOwn(ALONE, name)) {
    bind(name, args, []);
    return ALONE[name]!(value);
  }
  if (!Object.hasOwn(WITH_ONE, name)) throw new TemplateFault(`No test named '${name}'.`);
  return WITH_ONE[name]!(value, bind(name, args, ['other'])[0]!);
}
