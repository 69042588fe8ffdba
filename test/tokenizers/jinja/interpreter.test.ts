import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { TemplateFault } from '../../../src/tokenizers/jinja/fault.js';
import { strftime } from '../../../src/tokenizers/jinja/format.js';
import { JinjaTemplate, LIMITS } from '../../../src/tokenizers/jinja/interpreter.js';

interface Fixture {
  data: Record<string, unknown>;
  cases: { template: string; text?: string; error?: string }[];
  dates: { date: [number, number, number, number, number, number]; texts: Record<string, string> }[];
}

const render = (template: string, data: Record<string, unknown> = {}, limits = LIMITS): string =>
  new JinjaTemplate(template).render(data, limits);

describe('templates', () => {
  let fixture: Fixture;
  before(async () => {
    fixture = JSON.parse(await readFile('test/fixtures/jinja_templates.json', 'utf8')) as Fixture;
  });

  it('write what Jinja under transformers writes, and are refused where it refuses them', () => {
    expect(fixture.cases.length).to.be.greaterThan(500);
    for (const { template, text, error } of fixture.cases) {
      if (error !== undefined) expect(() => render(template, fixture.data), template).to.throw(TemplateFault);
      else expect(render(template, fixture.data), template).to.equal(text);
    }
  });

  it('write dates as Python does', () => {
    for (const { date, texts } of fixture.dates) {
      const [year, month, day, ...time] = date;
      for (const [format, text] of Object.entries(texts))
        expect(strftime(format, new Date(year, month - 1, day, ...time)), `${format} of ${date.join()}`).to.equal(text);
    }
  });

  it('say what a template raises, and where one is no template', () => {
    expect(() => render("{{ raise_exception('Roles must alternate') }}")).to.throw(
      TemplateFault,
      'Roles must alternate',
    );
    expect(() => render('a\nb{% if %}')).to.throw(TemplateFault, 'line 2');
    expect(() => render('{{ nobody.name }}')).to.throw(TemplateFault, "'nobody' is undefined");
    expect(() => render('{{ [1] | shuffled }}')).to.throw(TemplateFault, "No filter named 'shuffled'");
    expect(() => render("{% include 'x' %}")).to.throw(TemplateFault, "unknown tag 'include'");
  });

  it('cannot run for ever, write without end, or go deeper than the stack', () => {
    const few = { ...LIMITS, steps: 100_000, milliseconds: 60_000 };
    const nested = '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}';
    expect(() => render(nested, {}, few)).to.throw(TemplateFault, 'steps');
    expect(() => render(nested, {}, { ...LIMITS, milliseconds: 50 })).to.throw(TemplateFault, 'seconds');
    expect(() => render('{{ range(10 ** 9) | list }}')).to.throw(TemplateFault, 'MAX_RANGE');
    expect(() => render("{{ 'x' * 10 ** 9 }}")).to.throw(TemplateFault, 'too long');
    const doubled =
      "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
    expect(() => render(doubled)).to.throw(TemplateFault, 'too long');
    const joined = "{% set x = 'a' * 9999999 %}{{ ([x] * 1000) | join }}";
    expect(() => render(joined)).to.throw(TemplateFault, 'too long');
    expect(() =>
      render("{{ 'a' | replace('', 'b' * 9999999) }}{{ ('a' * 9999999) | replace('a', 'bbbbbbbbbb') }}"),
    ).to.throw(TemplateFault, 'too long');
    const kept =
      "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = ns.x + ['b' * 9999999] %}{% endfor %}";
    expect(() => render(kept)).to.throw(TemplateFault, 'too long');
    expect(() => render("{{ '%999999999d' % 1 }}{{ 'a' | center(10 ** 9) }}")).to.throw(TemplateFault);
    expect(() => render('{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}')).to.throw(TemplateFault, 'recursion');
    expect(() => render(`{{ ${'('.repeat(5000)}1${')'.repeat(5000)} }}`)).to.throw(TemplateFault, 'nested');
    expect(() => render(`{{ ${'not '.repeat(5000)}1 }}`)).to.throw(TemplateFault, 'nested');
    expect(() => render('{% if 1 %}'.repeat(5000) + '{% endif %}'.repeat(5000))).to.throw(TemplateFault, 'nested');
    const selfish: unknown[] = [];
    for (let i = 0, at = selfish; i < 5000; i++) at.push((at = []));
    expect(() => render('{{ x | tojson }}', { x: selfish })).to.throw(TemplateFault, 'nested');
    expect(() => render('{{ x }}', { x: selfish })).to.throw(TemplateFault, 'nested');
  });

  it('are read in time that grows with their length', () => {
    const began = performance.now();
    for (const filling of [' ', '\n', '{', '{ ', '{#- x -#}', "{{ '' }}", '\\', '"', '{%- raw -%} {%- endraw -%}']) {
      const text = filling.repeat(Math.floor(300_000 / filling.length));
      for (const template of [text, `{{ 1${text}`, `{{ '${text}' }}`, `${text}{%- if 1 %}${text}{% endif %}`]) {
        try {
          render(template);
        } catch (error) {
          expect(error).to.be.instanceOf(TemplateFault);
        }
      }
    }
    expect(performance.now() - began).to.be.lessThan(20_000);
  });
});
