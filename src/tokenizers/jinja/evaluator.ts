/** Values of expressions. */
import { bind } from './arguments.js';
import { TemplateFault } from './fault.js';
import { applyFilter } from './filters.js';
import { methodOf, partOfNumber } from './methods.js';
import { binary, unary } from './operators.js';
import type { Scope } from './scope.js';
import type { FilterHost } from './sequence_filters.js';
import type { ArgumentNodes, Expression } from './syntax.js';
import { passes } from './tests.js';
import {
  type Arguments,
  Callable,
  characters,
  Float,
  iterate,
  LoopValue,
  MacroValue,
  NamedTuple,
  Namespace,
  numberOf,
  str,
  truth,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js';

/** What expressions need of what runs statements. */
export interface StatementHost {
  /** Counts a step. @throws TemplateFault beyond the limits */
  step(): void;
  /** Counts a value that was made. @throws TemplateFault for one beyond the limits */
  checked(value: Value): Value;
  macro(macro: MacroValue, args: Arguments, caller: Value | null): Value;
  /** A recursive loop over other items. */
  loop(loop: LoopValue, items: readonly Value[]): string;
}

export class Evaluator implements FilterHost {
  constructor(private readonly host: StatementHost) {}

  value(node: Expression, scope: Scope): Value {
    this.host.step();
    return node.type === 'constant' ? node.value : this.host.checked(this.made(node, scope));
  }

  private made(node: Expression, scope: Scope): Value {
    switch (node.type) {
      case 'constant':
        return node.value;
      case 'name':
        return scope.get(node.name);
      case 'list':
        return node.items.map((item) => this.value(item, scope));
      case 'tuple':
        return new Tuple(node.items.map((item) => this.value(item, scope)));
      case 'concat':
        return node.items.map((item) => str(this.value(item, scope))).join('');
      case 'dict':
        return new Map(node.entries.map(([key, item]) => [this.key(this.value(key, scope)), this.value(item, scope)]));
      case 'attribute':
        return this.attribute(this.value(node.object, scope), node.name);
      case 'item':
        return this.item(this.value(node.object, scope), this.value(node.index, scope));
      case 'slice':
        return this.slice(
          this.value(node.object, scope),
          node.bounds.map((bound) => (bound ? this.value(bound, scope) : null)),
        );
      case 'call':
        return this.call(this.value(node.callee, scope), this.args(node.args, scope));
      case 'filter':
        return this.filter(node.name, this.value(node.operand, scope), this.args(node.args, scope));
      case 'test':
        return this.test(node.name, this.value(node.operand, scope), this.args(node.args, scope));
      case 'unary':
        return unary(node.operator, this.value(node.operand, scope));
      case 'and': {
        const left = this.value(node.left, scope);
        return truth(left) ? this.value(node.right, scope) : left;
      }
      case 'or': {
        const left = this.value(node.left, scope);
        return truth(left) ? left : this.value(node.right, scope);
      }
      case 'binary':
        return binary(node.operator, this.value(node.left, scope), this.value(node.right, scope));
      case 'compare': {
        let left = this.value(node.first, scope);
        for (const [operator, next] of node.rest) {
          const right = this.value(next, scope);
          if (binary(operator, left, right) === false) return false;
          left = right;
        }
        return true;
      }
      case 'condition':
        if (truth(this.value(node.test, scope))) return this.value(node.yes, scope);
        if (node.no) return this.value(node.no, scope);
        return new Undefined('the inline if-expression evaluated to false and no else section was defined. It');
    }
  }

  args(nodes: ArgumentNodes, scope: Scope): Arguments {
    const positional = nodes.positional.map((node) => this.value(node, scope));
    const named = new Map<string, Value>();
    const name = (key: string, value: Value): void => {
      if (named.has(key)) throw new TemplateFault(`got multiple values for keyword argument '${key}'`);
      named.set(key, value);
    };
    for (const [key, node] of nodes.named) name(key, this.value(node, scope));
    if (nodes.spread) positional.push(...iterate(this.value(nodes.spread, scope)));
    if (nodes.spreadNamed) {
      const given = this.value(nodes.spreadNamed, scope);
      if (!(given instanceof Map)) throw new TemplateFault('argument after ** must be a mapping');
      for (const [key, value] of given) name(str(key), value);
    }
    return { positional, named };
  }

  call(callee: Value, args: Arguments): Value {
    if (callee instanceof MacroValue) return this.host.macro(callee, args, null);
    if (callee instanceof LoopValue) {
      if (!callee.node.recursive)
        throw new TemplateFault("The loop must have the 'recursive' marker to be called recursively.");
      return this.host.loop(callee, iterate(bind('loop', args, ['iterable'])[0]!));
    }
    if (callee instanceof Callable) return callee.call(args);
    if (callee instanceof Undefined) throw new TemplateFault(`${callee.what} is undefined`);
    throw new TemplateFault(`'${typeName(callee)}' object is not callable`);
  }

  filter(name: string, value: Value, args: Arguments): Value {
    return applyFilter(this, name, value, args);
  }

  test(name: string, value: Value, args: Arguments): boolean {
    return passes(name, value, args);
  }

  /** A key of a dictionary: floats of a whole value are the integer, true and false are 1 and 0 only to Python. */
  private key(value: Value): Value {
    if (value instanceof Float && Number.isInteger(value.value)) return value.value;
    if (Array.isArray(value) || value instanceof Map) throw new TemplateFault(`unhashable type: '${typeName(value)}'`);
    if (value instanceof Tuple) throw new TemplateFault('a tuple as a key of a dictionary is not supported');
    return value instanceof Float ? value.value : value;
  }

  private own(value: Value, name: Value): Value | undefined {
    if (value instanceof Namespace) return typeof name === 'string' ? value.values.get(name) : undefined;
    if (value instanceof Map) return value.get(name instanceof Float ? name.value : name);
    if (value instanceof View && value.type !== 'range') return undefined; // of a dictionary: Python gives no item of it by number
    const index = typeof name === 'boolean' ? Number(name) : name;
    if (typeof index !== 'number') return undefined;
    const items = typeof value === 'string' ? characters(value) : value instanceof Tuple ? value.items : value;
    return Array.isArray(items) ? (items as readonly Value[]).at(index) : undefined;
  }

  /** value.name: a method, or else an item. */
  attribute(value: Value, name: Value): Value {
    if (value instanceof NamedTuple && typeof name === 'string' && value.names.includes(name))
      return value.items[value.names.indexOf(name)]!;
    if (value instanceof MacroValue && name === 'name') return value.name;
    if (value instanceof MacroValue && name === 'arguments')
      return new Tuple(value.parameters.map((each) => each.name));
    if (value instanceof Undefined) throw new TemplateFault(`${value.what} is undefined`);
    const method = typeof name === 'string' ? methodOf(value, name) : null;
    if (method) return method;
    const own = this.own(value, name);
    if (own !== undefined) return own;
    const part = partOfNumber(value, name);
    return part === undefined ? this.missing(value, name) : part;
  }

  /** value[name]: an item, or else a method. */
  private item(value: Value, name: Value): Value {
    if (value instanceof Undefined) throw new TemplateFault(`${value.what} is undefined`);
    const own = this.own(value, name);
    if (own !== undefined) return own;
    return (typeof name === 'string' ? methodOf(value, name) : null) ?? this.missing(value, name);
  }

  private missing(value: Value, name: Value): Undefined {
    return new Undefined(`'${typeName(value)} object' has no attribute '${str(name)}', which`);
  }

  private slice(object: Value, bounds: readonly Value[]): Value {
    const [start, stop, given] = bounds.map((value) => {
      if (value === null) return null;
      const x = value instanceof Float ? null : numberOf(value);
      if (x === null) throw new TemplateFault('slice indices must be integers or None');
      return x;
    });
    const step = given ?? 1;
    if (step === 0) throw new TemplateFault('slice step cannot be zero');
    if (object instanceof Undefined) throw new TemplateFault(`${object.what} is undefined`);
    const items = typeof object === 'string' ? characters(object) : object instanceof Tuple ? object.items : object;
    if (!Array.isArray(items)) return this.missing(object, 'a slice');
    const n = items.length;
    const clip = (at: number | null, otherwise: number): number => {
      if (at === null) return otherwise;
      const from = at < 0 ? at + n : at;
      return step > 0 ? Math.min(Math.max(from, 0), n) : Math.min(Math.max(from, -1), n - 1);
    };
    const [from, to] = [clip(start!, step > 0 ? 0 : n - 1), clip(stop!, step > 0 ? n : -1)];
    const out: Value[] = [];
    for (let i = from; step > 0 ? i < to : i > to; i += step) out.push((items as Value[])[i]!);
    if (typeof object === 'string') return (out as string[]).join('');
    if (object instanceof View) return object.part(from, to, step) ?? this.missing(object, 'a slice');
    return object instanceof Tuple ? new Tuple(out) : out;
  }
}
