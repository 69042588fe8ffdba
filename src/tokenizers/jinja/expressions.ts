/** Expressions of templates: Jinja's parser.py, with its order of operators. */
import { TemplateFault } from './fault.js';
import type { Token, TokenType } from './lexer.js';
import type { ArgumentNodes, Expression, FilterCall } from './syntax.js';
import { Float } from './values.js';

const COMPARISONS = new Set(['==', '!=', '<', '<=', '>', '>=']);
const CONSTANTS: Readonly<Record<string, boolean | null>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
};
/** Names that end a test and are no argument of it. */
const AFTER_TESTS = new Set(['else', 'or', 'and', 'if', 'is', 'in', 'not', 'recursive']);
/** Deepest nesting of expressions and blocks. */
const MOST_NESTED = 200;

/** A cursor over tokens, and what expressions are made of. */
export class ExpressionParser {
  protected at = 0;
  private depth = 0;

  constructor(protected readonly tokens: readonly Token[]) {}

  protected get token(): Token {
    return this.tokens[this.at]!;
  }

  protected fail(why: string): never {
    throw new TemplateFault(`${why} (line ${this.token.line})`);
  }

  protected is(type: TokenType, ...values: string[]): boolean {
    return this.token.type === type && (values.length === 0 || values.includes(this.token.value));
  }

  protected skip(type: TokenType, value?: string): boolean {
    const there = value === undefined ? this.is(type) : this.is(type, value);
    if (there) this.at++;
    return there;
  }

  protected expect(type: TokenType, value?: string): string {
    const { token } = this;
    if (!this.skip(type, value))
      this.fail(`expected ${value ?? type}, got ${token.value === '' ? token.type : `'${token.value}'`}`);
    return token.value;
  }

  /** Runs a rule one level deeper. @throws TemplateFault where that is too deep */
  protected deeper<T>(rule: () => T): T {
    if (this.depth >= MOST_NESTED) this.fail(`the template is nested deeper than ${MOST_NESTED} levels`);
    this.depth++;
    const made = rule();
    this.depth--;
    return made;
  }

  /** @param conditions whether `a if b else c` is one */
  expression(conditions = true): Expression {
    return this.deeper(() => (conditions ? this.condition() : this.or()));
  }

  private condition(): Expression {
    let yes = this.or();
    while (this.skip('name', 'if')) {
      const test = this.or();
      const no = this.skip('name', 'else') ? this.deeper(() => this.condition()) : null;
      yes = { type: 'condition', test, yes, no };
    }
    return yes;
  }

  private or(): Expression {
    let left = this.and();
    while (this.skip('name', 'or')) left = { type: 'or', left, right: this.and() };
    return left;
  }

  private and(): Expression {
    let left = this.not();
    while (this.skip('name', 'and')) left = { type: 'and', left, right: this.not() };
    return left;
  }

  private not(): Expression {
    if (!this.skip('name', 'not')) return this.comparison();
    return { type: 'unary', operator: 'not', operand: this.deeper(() => this.not()) };
  }

  private comparison(): Expression {
    const first = this.sum();
    const rest: [string, Expression][] = [];
    for (;;) {
      const next = this.tokens[this.at + 1];
      if (this.token.type === 'operator' && COMPARISONS.has(this.token.value)) {
        const operator = this.expect('operator');
        rest.push([operator, this.sum()]);
      } else if (this.skip('name', 'in')) rest.push(['in', this.sum()]);
      else if (this.is('name', 'not') && next?.type === 'name' && next.value === 'in') {
        this.at += 2;
        rest.push(['not in', this.sum()]);
      } else break;
    }
    return rest.length === 0 ? first : { type: 'compare', first, rest };
  }

  private sum(): Expression {
    let left = this.concat();
    while (this.is('operator', '+', '-'))
      left = { type: 'binary', operator: this.expect('operator'), left, right: this.concat() };
    return left;
  }

  private concat(): Expression {
    const items = [this.product()];
    while (this.skip('operator', '~')) items.push(this.product());
    return items.length === 1 ? items[0]! : { type: 'concat', items };
  }

  private product(): Expression {
    let left = this.power();
    while (this.is('operator', '*', '/', '//', '%'))
      left = { type: 'binary', operator: this.expect('operator'), left, right: this.power() };
    return left;
  }

  private power(): Expression {
    let left = this.unary(true);
    while (this.skip('operator', '**')) left = { type: 'binary', operator: '**', left, right: this.unary(true) };
    return left;
  }

  private unary(filters: boolean): Expression {
    let node: Expression;
    if (this.is('operator', '-', '+'))
      node = { type: 'unary', operator: this.expect('operator'), operand: this.deeper(() => this.unary(false)) };
    else node = this.primary();
    node = this.postfix(node);
    return filters ? this.filtersAndTests(node) : node;
  }

  private primary(): Expression {
    const { token } = this;
    switch (token.type) {
      case 'name':
        this.at++;
        if (Object.hasOwn(CONSTANTS, token.value)) return { type: 'constant', value: CONSTANTS[token.value]! };
        return { type: 'name', name: token.value };
      case 'string': {
        let value = '';
        while (this.is('string')) value += this.expect('string');
        return { type: 'constant', value };
      }
      case 'integer': {
        this.at++;
        const value = Number(token.value);
        if (!Number.isSafeInteger(value)) this.fail(`the integer ${token.value} is beyond 2^53`);
        return { type: 'constant', value };
      }
      case 'float':
        this.at++;
        return { type: 'constant', value: new Float(Number(token.value)) };
      default:
        if (this.skip('operator', '(')) {
          const node = this.tuple(true, true);
          this.expect('operator', ')');
          return node;
        }
        if (this.skip('operator', '[')) return { type: 'list', items: this.listed(']', () => this.expression()) };
        if (this.skip('operator', '{')) {
          const entry = (): readonly [Expression, Expression] => {
            const key = this.expression();
            this.expect('operator', ':');
            return [key, this.expression()];
          };
          return { type: 'dict', entries: this.listed('}', entry) };
        }
        return this.fail(`unexpected ${token.value === '' ? token.type : `'${token.value}'`}`);
    }
  }

  /** Items between commas up to a closing bracket, which is taken. */
  private listed<T>(close: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.skip('operator', close)) {
      if (items.length > 0) this.expect('operator', ',');
      if (this.skip('operator', close)) break;
      items.push(item());
    }
    return items;
  }

  /**
   * One expression, or several between commas as a tuple.
   * @param explicit in brackets, so that it may be empty @param conditions see expression
   */
  tuple(explicit: boolean, conditions: boolean): Expression {
    const items: Expression[] = [];
    let several = false;
    while (
      !this.is('end block') &&
      !this.is('end output') &&
      !this.is('operator', ')') &&
      !this.is('name', 'recursive')
    ) {
      if (items.length > 0) {
        if (!this.skip('operator', ',')) break;
        several = true;
      }
      if (this.is('end block') || this.is('end output') || this.is('operator', ')')) break;
      items.push(this.expression(conditions));
    }
    if (items.length === 1 && !several) return items[0]!;
    if (items.length === 0 && !explicit) this.fail('expected an expression');
    return { type: 'tuple', items };
  }

  private postfix(node: Expression): Expression {
    let out = node;
    for (;;) {
      if (this.skip('operator', '.')) {
        if (this.is('integer')) out = { type: 'attribute', object: out, name: Number(this.expect('integer')) };
        else out = { type: 'attribute', object: out, name: this.expect('name') };
      } else if (this.skip('operator', '[')) out = this.subscript(out);
      else if (this.is('operator', '(')) out = { type: 'call', callee: out, args: this.arguments() };
      else return out;
    }
  }

  private subscript(object: Expression): Expression {
    const parts: (Expression | null)[] = [];
    let colons = 0;
    while (!this.skip('operator', ']')) {
      if (this.skip('operator', ':')) {
        colons++;
        while (parts.length < colons) parts.push(null);
      } else if (parts.length > colons) this.fail(`unexpected '${this.token.value}' in brackets`);
      else parts.push(this.tupleInBrackets());
    }
    if (colons === 0) return { type: 'item', object, index: parts[0] ?? this.fail('expected a subscript') };
    if (colons > 2) this.fail('a slice has three parts at most');
    return { type: 'slice', object, bounds: [parts[0] ?? null, parts[1] ?? null, parts[2] ?? null] };
  }

  private tupleInBrackets(): Expression {
    const first = this.expression();
    if (!this.is('operator', ',')) return first;
    const items = [first];
    while (this.skip('operator', ',')) items.push(this.expression());
    return { type: 'tuple', items };
  }

  private filtersAndTests(node: Expression): Expression {
    let out = node;
    for (;;) {
      if (this.skip('operator', '|')) out = { type: 'filter', operand: out, ...this.filterCall() };
      else if (this.skip('name', 'is')) out = this.test(out);
      else if (this.is('operator', '(')) out = { type: 'call', callee: out, args: this.arguments() };
      else return out;
    }
  }

  private dotted(): string {
    let name = this.expect('name');
    while (this.skip('operator', '.')) name += `.${this.expect('name')}`;
    return name;
  }

  private filterCall(): FilterCall {
    return { name: this.dotted(), args: this.is('operator', '(') ? this.arguments() : NO_ARGUMENTS };
  }

  /** Filters of a block, the first without its bar. */
  filterCalls(): FilterCall[] {
    const calls = [this.filterCall()];
    while (this.skip('operator', '|')) calls.push(this.filterCall());
    return calls;
  }

  private test(operand: Expression): Expression {
    const negated = this.skip('name', 'not');
    const name = this.dotted();
    let args = NO_ARGUMENTS;
    if (this.is('operator', '(')) args = this.arguments();
    else if (
      ['string', 'integer', 'float'].includes(this.token.type) ||
      this.is('operator', '[', '{') ||
      (this.is('name') && !AFTER_TESTS.has(this.token.value))
    )
      args = { ...NO_ARGUMENTS, positional: [this.postfix(this.primary())] };
    const test: Expression = { type: 'test', operand, name, args };
    return negated ? { type: 'unary', operator: 'not', operand: test } : test;
  }

  protected arguments(): ArgumentNodes {
    this.expect('operator', '(');
    const positional: Expression[] = [];
    const named: [string, Expression][] = [];
    let [spread, spreadNamed]: (Expression | null)[] = [null, null];
    this.listed(')', () => {
      const next = this.tokens[this.at + 1];
      if (this.skip('operator', '*')) spread = this.expression();
      else if (this.skip('operator', '**')) spreadNamed = this.expression();
      else if (this.is('name') && next?.type === 'operator' && next.value === '=') {
        const name = this.expect('name');
        this.at++;
        named.push([name, this.expression()]);
      } else if (named.length > 0) this.fail('an argument without a name follows one with a name');
      else positional.push(this.expression());
    });
    return { positional, named, spread: spread ?? null, spreadNamed: spreadNamed ?? null };
  }
}

const NO_ARGUMENTS: ArgumentNodes = { positional: [], named: [], spread: null, spreadNamed: null };
