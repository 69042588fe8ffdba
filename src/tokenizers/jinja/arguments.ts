/** Arguments of functions, methods, filters and macros of templates: by position or by name, with defaults. */
import { TemplateFault } from './fault.js';
import { type Arguments, type Value } from './values.js';

/** A parameter, and what it is where it is not given; without a default it must be. */
export type Parameter = string | readonly [name: string, value: Value];

/** Values in the order of the parameters. @throws TemplateFault for a missing, a double or an unknown argument */
export function bind(what: string, { positional, named }: Arguments, parameters: readonly Parameter[]): Value[] {
  const names = parameters.map((parameter) => (typeof parameter === 'string' ? parameter : parameter[0]));
  if (positional.length > parameters.length)
    throw new TemplateFault(`${what}() takes at most ${parameters.length} argument(s), got ${positional.length}`);
  for (const name of named.keys()) {
    const at = names.indexOf(name);
    if (at < 0) throw new TemplateFault(`${what}() got an unexpected keyword argument '${name}'`);
    if (at < positional.length) throw new TemplateFault(`${what}() got multiple values for argument '${name}'`);
  }
  return parameters.map((parameter, i) => {
    if (i < positional.length) return positional[i]!;
    const given = named.get(names[i]!);
    if (given !== undefined) return given;
    if (typeof parameter !== 'string') return parameter[1];
    throw new TemplateFault(`${what}() misses its argument '${parameter}'`);
  });
}

/** A text argument. @throws TemplateFault for another type */
export function textOf(what: string, value: Value): string {
  if (typeof value === 'string') return value;
  throw new TemplateFault(`${what} expects a text`);
}

/** An integer argument; booleans count as 0 and 1. @throws TemplateFault for another type */
export function integerOf(what: string, value: Value): number {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  throw new TemplateFault(`${what} expects an integer`);
}
