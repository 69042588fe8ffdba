/**
 * Renders a parsed template with Python's meaning of values, as Jinja under transformers does, its sandbox included. Time,
 * steps and what is written are limited: templates come with models from anywhere.
 */
import { Evaluator } from './evaluator.js';
import { TemplateFault } from './fault.js';
import { GLOBALS } from './globals.js';
import { parseTemplate } from './parser.js';
import { Scope } from './scope.js';
import type { FilterCall, ForNode, Parameter, Statement, Target } from './syntax.js';
import {
  type Arguments,
  Callable,
  equal,
  iterate,
  LoopValue,
  MacroValue,
  Namespace,
  str,
  toValue,
  truth,
  Tuple,
  Undefined,
  type Value,
} from './values.js';

/** What one rendering may take at most. */
export interface Limits {
  /** Statements and expressions that are run. */
  steps: number;
  /** Characters of one text, and items of one list. */
  length: number;
  /** Characters and items of all values that are made. */
  total: number;
  milliseconds: number;
}

export const LIMITS: Limits = { steps: 20_000_000, length: 20_000_000, total: 1_000_000_000, milliseconds: 10_000 };

/** Deepest calls of macros and recursive loops. */
const MOST_CALLS = 200;

/** A parsed template, which can be rendered any number of times. */
export class JinjaTemplate {
  private readonly program: readonly Statement[];

  /** @throws TemplateFault for a text that is no template */
  constructor(source: string) {
    this.program = parseTemplate(source);
  }

  /** @throws TemplateFault for what Jinja refuses, what raise_exception() says, and beyond the limits */
  render(variables: Readonly<Record<string, unknown>>, limits: Limits = LIMITS): string {
    try {
      const globals = new Scope();
      for (const [name, value] of Object.entries(GLOBALS)) globals.set(name, value);
      const scope = new Scope(globals);
      for (const [name, value] of Object.entries(variables)) if (value !== undefined) scope.set(name, toValue(value));
      return new Interpreter(limits).render(this.program, scope);
    } catch (error) {
      // of JavaScript itself: a text beyond what it can hold, or a value nested too deep for the stack
      if (!(error instanceof RangeError)) throw error;
      const stack = /stack/i.test(error.message);
      throw new TemplateFault(stack ? 'a value is nested too deep' : 'the template makes a text that is too long');
    }
  }
}

/** How a block ended. */
type Completion = 'end' | 'break' | 'continue';

class Interpreter {
  private steps = 0;
  private made = 0;
  private calls = 0;
  private readonly end: number;
  private readonly evaluator: Evaluator;

  constructor(private readonly limits: Limits) {
    this.end = performance.now() + limits.milliseconds;
    this.evaluator = new Evaluator({
      step: () => this.step(),
      checked: (value) => this.checked(value),
      macro: (macro, args, caller) => this.callMacro(macro, args, caller),
      loop: (loop, items) => this.within(() => this.iterate(loop.node, items, loop.scope, loop.depth + 1)),
    });
  }

  private step(): void {
    if (++this.steps > this.limits.steps)
      throw new TemplateFault(`the template runs on after ${this.limits.steps} steps: it may never end`);
    if (this.steps % 1024 === 0 && performance.now() > this.end)
      throw new TemplateFault(`the template runs on after ${this.limits.milliseconds / 1000} seconds`);
  }

  /** Counts a value that was made. @throws TemplateFault for one beyond the limits */
  private checked(value: Value): Value {
    const size = typeof value === 'string' || Array.isArray(value) ? value.length : 0;
    if (size > this.limits.length)
      throw new TemplateFault(
        `the template makes a value that is too long: more than ${this.limits.length} characters or items`,
      );
    this.made += size;
    if (this.made > this.limits.total)
      throw new TemplateFault(
        `the template makes values that are too long: more than ${this.limits.total} characters and items in all`,
      );
    return value;
  }

  private write(text: string, out: string[]): void {
    this.checked(text);
    out.push(text);
  }

  render(program: readonly Statement[], scope: Scope): string {
    return this.block(program, scope);
  }

  private block(body: readonly Statement[], scope: Scope): string {
    const out: string[] = [];
    this.run(body, scope, out);
    return this.checked(out.join('')) as string;
  }

  private run(body: readonly Statement[], scope: Scope, out: string[]): Completion {
    for (const statement of body) {
      this.step();
      const completion = this.statement(statement, scope, out);
      if (completion !== 'end') return completion;
    }
    return 'end';
  }

  private statement(node: Statement, scope: Scope, out: string[]): Completion {
    switch (node.type) {
      case 'text':
        this.write(node.value, out);
        return 'end';
      case 'output':
        this.write(str(this.evaluator.value(node.value, scope)), out);
        return 'end';
      case 'if': {
        const branch = node.branches.find(([test]) => truth(this.evaluator.value(test, scope)));
        return this.run(branch ? branch[1] : node.otherwise, scope, out);
      }
      case 'for': {
        const items = iterate(this.evaluator.value(node.iterable, scope));
        this.write(this.iterate(node, items, scope, 0), out);
        return 'end';
      }
      case 'set':
        this.assign(node.target, this.evaluator.value(node.value, scope), scope);
        return 'end';
      case 'set block':
        this.assign(node.target, this.filtered(this.block(node.body, new Scope(scope)), node.filters, scope), scope);
        return 'end';
      case 'macro':
        scope.set(node.name, new MacroValue(node.name, node.parameters, node.body, scope));
        return 'end';
      case 'call block': {
        const caller = new MacroValue('caller', node.parameters, node.body, scope);
        const callee = this.evaluator.value(node.callee, scope);
        const args = this.evaluator.args(node.args, scope);
        const value =
          callee instanceof MacroValue ? this.callMacro(callee, args, caller) : this.evaluator.call(callee, args);
        this.write(str(value), out);
        return 'end';
      }
      case 'filter block':
        this.write(str(this.filtered(this.block(node.body, new Scope(scope)), node.filters, scope)), out);
        return 'end';
      case 'with': {
        const inner = new Scope(scope);
        for (const [target, value] of node.values) this.assign(target, this.evaluator.value(value, scope), inner);
        return this.run(node.body, inner, out);
      }
      default:
        return node.type;
    }
  }

  private filtered(text: string, filters: readonly FilterCall[], scope: Scope): Value {
    return filters.reduce<Value>(
      (value, { name, args }) => this.evaluator.filter(name, value, this.evaluator.args(args, scope)),
      text,
    );
  }

  private assign(target: Target, value: Value, scope: Scope): void {
    switch (target.type) {
      case 'name':
        scope.set(target.name, value);
        return;
      case 'namespace': {
        const object = scope.get(target.name);
        if (!(object instanceof Namespace)) throw new TemplateFault('cannot assign attribute on non-namespace object');
        object.values.set(target.attribute, value);
        return;
      }
      case 'tuple': {
        const [items, wanted] = [iterate(value), target.items.length];
        if (items.length < wanted)
          throw new TemplateFault(`not enough values to unpack (expected ${wanted}, got ${items.length})`);
        if (items.length > wanted) throw new TemplateFault(`too many values to unpack (expected ${wanted})`);
        target.items.forEach((part, i) => this.assign(part, items[i]!, scope));
      }
    }
  }

  private iterate(node: ForNode, all: readonly Value[], scope: Scope, depth: number): string {
    const bound = (item: Value): Scope => {
      const inner = new Scope(scope);
      this.assign(node.target, item, inner);
      return inner;
    };
    const { test } = node;
    const items = test ? all.filter((item) => truth(this.evaluator.value(test, bound(item)))) : all;
    if (items.length === 0) return this.block(node.otherwise, new Scope(scope));
    let before: Value[] | null = null;
    const changed = ({ positional }: Arguments): Value => {
      const same = before !== null && equal(before, positional);
      before = positional;
      return !same;
    };
    const out: string[] = [];
    for (const [i, item] of items.entries()) {
      this.step();
      const inner = bound(item);
      const loop = new LoopValue(node, scope, depth);
      for (const [name, value] of Object.entries<Value>({
        index: i + 1,
        index0: i,
        revindex: items.length - i,
        revindex0: items.length - i - 1,
        first: i === 0,
        last: i === items.length - 1,
        length: items.length,
        previtem: i > 0 ? items[i - 1]! : new Undefined('the item before the first'),
        nextitem: i + 1 < items.length ? items[i + 1]! : new Undefined('the item after the last'),
        depth: depth + 1,
        depth0: depth,
        cycle: new Callable('cycle', ({ positional }) => positional[i % positional.length]!),
        changed: new Callable('changed', changed),
      }))
        loop.values.set(name, value);
      inner.set('loop', loop);
      if (this.run(node.body, inner, out) === 'break') break;
    }
    return out.join('');
  }

  private within<T>(work: () => T): T {
    if (this.calls >= MOST_CALLS) throw new TemplateFault('maximum recursion depth exceeded');
    this.calls++;
    try {
      return work();
    } finally {
      this.calls--;
    }
  }

  private callMacro(macro: MacroValue, { positional, named }: Arguments, caller: Value | null): Value {
    const { parameters, body } = macro;
    const scope = new Scope(macro.scope);
    const rest = new Map(named);
    parameters.forEach(({ name, value }: Parameter, i) => {
      const given = i < positional.length ? positional[i] : rest.get(name);
      if (i >= positional.length) rest.delete(name);
      if (given !== undefined) scope.set(name, given);
      else
        scope.set(
          name,
          value ? this.evaluator.value(value, scope) : new Undefined(`parameter '${name}' was not provided`),
        );
    });
    const unknown = [...rest.keys()][0];
    if (positional.length > parameters.length && !macro.uses('varargs'))
      throw new TemplateFault(`macro '${macro.name}' takes not more than ${parameters.length} argument(s)`);
    if (unknown !== undefined && !macro.uses('kwargs'))
      throw new TemplateFault(`macro '${macro.name}' takes no keyword argument '${unknown}'`);
    scope.set('varargs', new Tuple(positional.slice(parameters.length)));
    scope.set('kwargs', new Map<Value, Value>(rest));
    scope.set('caller', caller === null ? new Undefined('No caller defined, so that it') : caller);
    return this.within(() => this.block(body, scope));
  }
}
