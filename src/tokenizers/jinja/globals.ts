/** Functions that every template has: Jinja's, and those that transformers adds. */
import { bind } from './arguments.js';
import { TemplateFault } from './fault.js';
import { strftime } from './format.js';
import { type Arguments, Callable, iterate, Namespace, str, typeName, type Value, View } from './values.js';

/** Most items of a range() (jinja2.sandbox.MAX_RANGE). */
const MAX_RANGE = 100_000;

function range({ positional }: Arguments): Value {
  const numbers = positional.map((value) => {
    if (typeof value === 'number') return value;
    throw new TemplateFault(`'${typeName(value)}' object cannot be interpreted as an integer`);
  });
  const [start, stop, step] = numbers.length === 1 ? [0, numbers[0]!, 1] : [numbers[0]!, numbers[1]!, numbers[2] ?? 1];
  if (numbers.length === 0 || numbers.length > 3 || step === 0)
    throw new TemplateFault('range() expects one to three integers, and no step of 0');
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > MAX_RANGE)
    throw new TemplateFault(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${MAX_RANGE}).`);
  return View.range(start, stop, step);
}

function entriesOf({ positional, named }: Arguments): [Value, Value][] {
  const given = positional.flatMap((from) =>
    from instanceof Map ? [...from] : iterate(from).map((pair) => iterate(pair) as [Value, Value]),
  );
  return [...given, ...named];
}

function joiner(args: Arguments): Value {
  const separator = bind('joiner', args, [['sep', ', ']])[0]!;
  let used = false;
  return new Callable('joiner', () => {
    const out = used ? separator : '';
    used = true;
    return out;
  });
}

function cycler({ positional }: Arguments): Value {
  if (positional.length === 0) throw new TemplateFault('at least one item has to be provided');
  const made = new Namespace(new Map<string, Value>([['current', positional[0]!]]));
  let at = 0;
  const move = (to: number): Value => {
    const value = positional[at]!;
    at = to % positional.length;
    made.values.set('current', positional[at]!);
    return value;
  };
  made.values.set('next', new Callable('next', () => move(at + 1)));
  made.values.set('reset', new Callable('reset', () => (move(0), null)));
  return made;
}

export const GLOBALS: Readonly<Record<string, Callable>> = {
  range: new Callable('range', range),
  dict: new Callable('dict', (args) => new Map(entriesOf(args))),
  namespace: new Callable('namespace', (args) => new Namespace(new Map(entriesOf(args).map(([k, v]) => [str(k), v])))),
  raise_exception: new Callable('raise_exception', (args) => {
    throw new TemplateFault(str(bind('raise_exception', args, ['message'])[0]!));
  }),
  strftime_now: new Callable('strftime_now', (args) =>
    strftime(str(bind('strftime_now', args, ['format'])[0]!), new Date()),
  ),
  joiner: new Callable('joiner', joiner),
  cycler: new Callable('cycler', cycler),
};
