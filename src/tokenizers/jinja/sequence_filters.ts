/** Jinja's filters of lists: choosing, ordering, grouping and cutting them. */
import { bind, integerOf, textOf } from './arguments.js';
import { TemplateFault } from './fault.js';
import { binary } from './operators.js';
import {
  type Arguments,
  NamedTuple,
  Tuple,
  Undefined,
  compare,
  equal,
  iterate,
  str,
  truth,
  typeName,
  type Value,
} from './values.js';

/** What filters need of the interpreter. */
export interface FilterHost {
  attribute(value: Value, name: Value): Value;
  test(name: string, value: Value, args: Arguments): boolean;
  filter(name: string, value: Value, args: Arguments): Value;
}

export type Filter = (value: Value, args: Arguments, host: FilterHost) => Value;

/** An attribute by a path such as 'function.name' or an index. */
function path(host: FilterHost, value: Value, name: Value): Value {
  if (typeof name !== 'string') return host.attribute(value, name);
  return name.split('.').reduce((at, part) => host.attribute(at, /^\d+$/.test(part) ? Number(part) : part), value);
}

/** What a list is sorted or compared by: an attribute, texts without regard to case unless asked for. */
function keyOf(host: FilterHost, attribute: Value, caseSensitive: Value): (value: Value) => Value {
  return (value) => {
    const own = attribute === null ? value : path(host, value, attribute);
    return typeof own === 'string' && !truth(caseSensitive) ? own.toLowerCase() : own;
  };
}

function sorted(items: Value[], key: (value: Value) => Value, reverse: boolean): Value[] {
  const keyed = items.map((item) => [key(item), item] as const);
  keyed.sort(([a], [b]) => (reverse ? compare(b, a) : compare(a, b)));
  return keyed.map(([, item]) => item);
}

export function extreme(name: string, sign: 1 | -1): Filter {
  return (value, args, host) => {
    const [caseSensitive, attribute] = bind(name, args, [
      ['case_sensitive', false],
      ['attribute', null],
    ]);
    const items = iterate(value);
    if (items.length === 0) return new Undefined('No aggregated item, sequence was empty. It');
    const key = keyOf(host, attribute!, caseSensitive!);
    return items.reduce((best, item) => (sign * compare(key(item), key(best)) < 0 ? item : best));
  };
}

/** select, reject: by a test of the items; selectattr, rejectattr: by one of an attribute. */
export function selecting(keep: boolean, byAttribute: boolean): Filter {
  return (value, { positional, named }, host) => {
    const [attribute, rest] = byAttribute ? [positional[0], positional.slice(1)] : [undefined, positional];
    if (byAttribute && attribute === undefined) throw new TemplateFault('Missing parameter for attribute name');
    const test = rest.length === 0 ? null : textOf('the name of a test', rest[0]!);
    return iterate(value).filter((item) => {
      const own = attribute === undefined ? item : path(host, item, attribute);
      const passes = test === null ? truth(own) : host.test(test, own, { positional: rest.slice(1), named });
      return passes === keep;
    });
  };
}

export const map: Filter = (value, { positional, named }, host) => {
  const items = iterate(value);
  if (positional.length === 0 && named.has('attribute')) {
    const [attribute, otherwise] = [named.get('attribute')!, named.get('default')];
    return items.map((item) => {
      const own = path(host, item, attribute);
      return own instanceof Undefined && otherwise !== undefined ? otherwise : own;
    });
  }
  const [name, ...rest] = positional;
  if (name === undefined) throw new TemplateFault('map requires a filter argument');
  return items.map((item) => host.filter(textOf('map', name), item, { positional: rest, named }));
};

export const join: Filter = (value, args, host) => {
  const [separator, attribute] = bind('join', args, [
    ['d', ''],
    ['attribute', null],
  ]);
  const items = iterate(value).map((item) => str(attribute === null ? item : path(host, item, attribute!)));
  return items.join(str(separator!));
};

export const sort: Filter = (value, args, host) => {
  const [reverse, caseSensitive, attribute] = bind('sort', args, [
    ['reverse', false],
    ['case_sensitive', false],
    ['attribute', null],
  ]);
  const names = typeof attribute === 'string' ? attribute.split(',') : [attribute!];
  const keys = names.map((name) => keyOf(host, name, caseSensitive!));
  const key = keys.length === 1 ? keys[0]! : (item: Value): Value => keys.map((one) => one(item));
  return sorted(iterate(value), key, truth(reverse!));
};

export const unique: Filter = (value, args, host) => {
  const [caseSensitive, attribute] = bind('unique', args, [
    ['case_sensitive', false],
    ['attribute', null],
  ]);
  const key = keyOf(host, attribute!, caseSensitive!);
  const seen: Value[] = [];
  return iterate(value).filter((item) => {
    const own = key(item);
    if (seen.some((other) => equal(other, own))) return false;
    seen.push(own);
    return true;
  });
};

export const groupby: Filter = (value, args, host) => {
  const [attribute, otherwise, caseSensitive] = bind('groupby', args, [
    'attribute',
    ['default', null],
    ['case_sensitive', false],
  ]);
  const raw = (item: Value): Value => {
    const own = path(host, item, attribute!);
    return own instanceof Undefined && otherwise !== null ? otherwise! : own;
  };
  const key = (item: Value): Value => {
    const own = raw(item);
    return typeof own === 'string' && !truth(caseSensitive!) ? own.toLowerCase() : own;
  };
  const groups: [Value, Value[]][] = [];
  for (const item of sorted(iterate(value), key, false)) {
    const last = groups.at(-1);
    if (last && equal(key(last[1][0]!), key(item))) last[1].push(item);
    else groups.push([raw(item), [item]]);
  }
  return groups.map(([name, items]) => new NamedTuple([name, items], ['grouper', 'list']));
};

export const dictsort: Filter = (value, args) => {
  const [caseSensitive, by, reverse] = bind('dictsort', args, [
    ['case_sensitive', false],
    ['by', 'key'],
    ['reverse', false],
  ]);
  if (!(value instanceof Map)) throw new TemplateFault(`dictsort expects a dictionary, not ${typeName(value)}`);
  const at = by === 'value' ? 1 : 0;
  const key = (entry: Value): Value => {
    const own = (entry as Tuple).items[at]!;
    return typeof own === 'string' && !truth(caseSensitive!) ? own.toLowerCase() : own;
  };
  return sorted(
    [...value].map((entry) => new Tuple(entry)),
    key,
    truth(reverse!),
  );
};

export const sum: Filter = (value, args, host) => {
  const [attribute, start] = bind('sum', args, [
    ['attribute', null],
    ['start', 0],
  ]);
  return iterate(value).reduce((all, item) => {
    return binary('+', all, attribute === null ? item : path(host, item, attribute!));
  }, start!);
};

/** Cuts a list into lists of `size`; the last is filled where asked for. */
export function batches(value: Value, [size, fill]: Value[]): Value[] {
  const [items, count] = [iterate(value), integerOf('batch', size!)];
  if (count < 1) throw new TemplateFault('batch expects a positive number');
  const out: Value[][] = [];
  for (let i = 0; i < items.length; i += count) out.push(items.slice(i, i + count));
  const last = out.at(-1);
  if (last && fill !== null) while (last.length < count) last.push(fill!);
  return out;
}

/** Cuts a list into `count` lists of about equal length. */
export function slices(value: Value, [count, fill]: Value[]): Value[] {
  const [items, n] = [iterate(value), integerOf('slice', count!)];
  if (n < 1) throw new TemplateFault('slice expects a positive number');
  const [each, longer] = [Math.floor(items.length / n), items.length % n];
  let at = 0;
  return Array.from({ length: Math.min(n, 100_000) }, (_, i) => {
    const part = items.slice(at, (at += each + (i < longer ? 1 : 0)));
    return fill !== null && i >= longer && longer > 0 ? [...part, fill!] : part;
  });
}
