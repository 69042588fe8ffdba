/** Jinja's tests (`x is defined`), as its tests.py has them. */
import { bind } from './arguments.js';
import { TemplateFault } from './fault.js';
import { FILTERS } from './filters.js';
import { binary, contains } from './operators.js';
import { type Arguments, Callable, equal, Float, numberOf, Tuple, typeName, Undefined, type Value } from './values.js';

const integer = (value: Value, name: string): number => {
  if (typeof value === 'number') return value;
  throw new TemplateFault(`the test '${name}' expects an integer, not ${typeName(value)}`);
};

const compared =
  (operator: string) =>
  (value: Value, other: Value): boolean =>
    binary(operator, value, other) as boolean;

const ALONE: Readonly<Record<string, (value: Value) => boolean>> = {
  boolean: (value) => typeof value === 'boolean',
  callable: (value) => value instanceof Callable,
  defined: (value) => !(value instanceof Undefined),
  escaped: () => false,
  even: (value) => integer(value, 'even') % 2 === 0,
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
  odd: (value) => Math.abs(integer(value, 'odd') % 2) === 1,
  sequence: (value) =>
    typeof value === 'string' ||
    Array.isArray(value) ||
    value instanceof Map ||
    value instanceof Tuple ||
    value instanceof Undefined,
  string: (value) => typeof value === 'string',
  test: (value) => typeof value === 'string' && isTest(value),
  true: (value) => value === true,
  undefined: (value) => value instanceof Undefined,
  upper: (value) => typeof value === 'string' && value === value.toUpperCase() && value !== value.toLowerCase(),
};

const WITH_ONE: Readonly<Record<string, (value: Value, other: Value) => boolean>> = {
  divisibleby: (value, by) => integer(value, 'divisibleby') % integer(by, 'divisibleby') === 0,
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
