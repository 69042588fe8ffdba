/** Statements of templates: Jinja's parser.py with the extensions that transformers turns on (break, continue, generation). */
import { ExpressionParser } from './expressions.js';
import { TemplateFault } from './fault.js';
import { tokenize } from './lexer.js';
import type { Parameter, Statement, Target } from './syntax.js';

/** Tags whose blocks are written as they stand: what they mark is not asked for here. */
const TRANSPARENT = new Set(['generation', 'block', 'autoescape']);

class TemplateParser extends ExpressionParser {
  /** loops around the statement that is read */
  private loops = 0;

  program(): Statement[] {
    const body = this.statements([]);
    if (!this.is('end')) this.fail(`unexpected tag '${this.token.value}'`);
    return body;
  }

  /** Statements up to a tag of one of these names, which is left standing after its `{%`; or up to the end. */
  private statements(ends: readonly string[]): Statement[] {
    const out: Statement[] = [];
    for (;;) {
      if (this.is('text')) out.push({ type: 'text', value: this.expect('text') });
      else if (this.skip('begin output')) {
        out.push({ type: 'output', value: this.tuple(false, true) });
        this.expect('end output');
      } else if (this.skip('begin block')) {
        if (this.is('name', ...ends) && ends.length > 0) return out;
        out.push(...this.deeper(() => this.statement()));
      } else if (ends.length === 0) return out;
      else this.fail(`unexpected end of template: expected ${ends.join(' or ')}`);
    }
  }

  /** The body of a block: from the end of its tag to its closing tag, both taken. */
  private body(...ends: string[]): { body: Statement[]; end: string } {
    this.expect('end block');
    const body = this.statements(ends);
    return { body, end: this.expect('name') };
  }

  private statement(): Statement[] {
    const tag = this.expect('name');
    switch (tag) {
      case 'for':
        return [this.loop()];
      case 'if':
        return [this.conditional()];
      case 'set':
        return [this.assignment()];
      case 'macro': {
        const name = this.expect('name');
        const parameters = this.parameters();
        return [{ type: 'macro', name, parameters, body: this.outside(() => this.closed('endmacro')) }];
      }
      case 'call': {
        const parameters = this.is('operator', '(') ? this.parameters() : [];
        const call = this.expression();
        if (call.type !== 'call') this.fail('expected a call');
        return [{ type: 'call block', callee: call.callee, args: call.args, parameters, body: this.closed('endcall') }];
      }
      case 'filter':
        return [{ type: 'filter block', filters: this.filterCalls(), body: this.closed('endfilter') }];
      case 'with':
        return [this.withBlock()];
      case 'break':
      case 'continue':
        this.expect('end block');
        if (this.loops === 0) this.fail(`'${tag}' outside loop`);
        return [{ type: tag }];
      case 'print': {
        const value = this.tuple(false, true);
        this.expect('end block');
        return [{ type: 'output', value }];
      }
      default:
        if (!TRANSPARENT.has(tag)) this.fail(`Encountered unknown tag '${tag}'`);
        // what is escaped would be written as it is
        if (tag === 'autoescape' && !this.skip('name', 'false') && !this.skip('name', 'False'))
          this.fail('autoescape is not supported');
        while (!this.is('end block')) this.at++;
        return this.closed(`end${tag}`);
    }
  }

  /** What stands in a macro is in none of the loops around it. */
  private outside<T>(read: () => T): T {
    const loops = this.loops;
    this.loops = 0;
    const made = read();
    this.loops = loops;
    return made;
  }

  private closed(end: string): Statement[] {
    const { body } = this.body(end);
    if (end === 'endblock') this.skip('name');
    this.expect('end block');
    return body;
  }

  private loop(): Statement {
    const target = this.targets('in');
    this.expect('name', 'in');
    const iterable = this.tuple(false, false);
    const test = this.skip('name', 'if') ? this.expression() : null;
    const recursive = this.skip('name', 'recursive');
    this.loops++;
    const { body, end } = this.body('else', 'endfor');
    this.loops--;
    const otherwise = end === 'else' ? this.body('endfor').body : [];
    this.expect('end block');
    return { type: 'for', target, iterable, test, recursive, body, otherwise };
  }

  private conditional(): Statement {
    const branches: [ReturnType<TemplateParser['expression']>, Statement[]][] = [];
    for (;;) {
      const test = this.tuple(false, false);
      const { body, end } = this.body('elif', 'else', 'endif');
      branches.push([test, body]);
      if (end === 'elif') continue;
      const otherwise = end === 'else' ? this.body('endif').body : [];
      this.expect('end block');
      return { type: 'if', branches, otherwise };
    }
  }

  private assignment(): Statement {
    const target = this.targets('=');
    if (this.skip('operator', '=')) {
      const value = this.tuple(false, true);
      this.expect('end block');
      return { type: 'set', target, value };
    }
    const filters = this.skip('operator', '|') ? this.filterCalls() : [];
    return { type: 'set block', target, filters, body: this.closed('endset') };
  }

  private withBlock(): Statement {
    const values: [Target, ReturnType<TemplateParser['expression']>][] = [];
    while (!this.is('end block')) {
      if (values.length > 0) this.expect('operator', ',');
      const target = this.target();
      this.expect('operator', '=');
      values.push([target, this.expression()]);
    }
    return { type: 'with', values, body: this.closed('endwith') };
  }

  /** One target or several between commas, up to a word or a sign. */
  private targets(end: string): Target {
    const items = [this.target()];
    let several = false;
    while (this.skip('operator', ',')) {
      several = true;
      if (this.is('name', end) || this.is('operator', end)) break;
      items.push(this.target());
    }
    return several ? { type: 'tuple', items } : items[0]!;
  }

  private target(): Target {
    if (this.skip('operator', '(')) {
      const inner = this.targets(')');
      this.expect('operator', ')');
      return inner;
    }
    const name = this.expect('name');
    if (['true', 'false', 'none', 'True', 'False', 'None'].includes(name)) this.fail(`can't assign to '${name}'`);
    return this.skip('operator', '.')
      ? { type: 'namespace', name, attribute: this.expect('name') }
      : { type: 'name', name };
  }

  private parameters(): Parameter[] {
    const out: Parameter[] = [];
    this.expect('operator', '(');
    while (!this.skip('operator', ')')) {
      if (out.length > 0) this.expect('operator', ',');
      const name = this.expect('name');
      const value = this.skip('operator', '=') ? this.expression() : null;
      if (value === null && out.at(-1)?.value) this.fail('non-default argument follows default argument');
      out.push({ name, value });
    }
    return out;
  }
}

/** Longest template that is read, in characters. */
const MOST_CHARACTERS = 1_000_000;

/** @throws TemplateFault naming the line for what is no template, and for one that is too long or nested too deep */
export function parseTemplate(source: string): Statement[] {
  if (source.length > MOST_CHARACTERS)
    throw new TemplateFault(`the template has ${source.length} characters, more than ${MOST_CHARACTERS}`);
  return new TemplateParser(tokenize(source)).program();
}
