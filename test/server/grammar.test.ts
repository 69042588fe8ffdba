/** Grammars of JSON schemas: whatever they let through parses, and fits the schema by ajv; what they cannot hold to is refused. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { expect } from 'chai';
import { ApiError } from '../../src/server/errors.js';
import { integers } from '../../src/server/grammar/digits.js';
import { jsonObjectGrammar } from '../../src/server/grammar/json_rules.js';
import { schemaGrammar } from '../../src/server/grammar/json_schema.js';
import { lcg } from '../support/random.js';
import { GrammarWalker } from './grammar_support.js';

describe('grammars of JSON schemas', function () {
  this.timeout(300_000);
  const END = 0;
  let walker: GrammarWalker;
  before(async () => {
    walker = await GrammarWalker.load();
  });

  it('let through texts that fit, of every keyword that is supported', async () => {
    const ajv = new Ajv2020({ strict: false });
    (addFormats as unknown as { default: (ajv: Ajv2020) => void }).default(ajv);
    const random = lcg(11);
    const schemas: object[] = [
      {
        type: 'object',
        properties: { name: { type: 'string' }, age: { type: 'integer', minimum: 3 } },
        required: ['name', 'age'],
        additionalProperties: false,
      },
      {
        type: 'object',
        properties: { a: { type: 'boolean' }, b: { type: 'null' }, c: { enum: ['x', 2, null, { d: [1] }] } },
        required: ['b'],
      },
      { type: 'array', items: { type: 'number', minimum: -2.5, exclusiveMaximum: 7 }, minItems: 2, maxItems: 5 },
      { type: 'string', minLength: 3, maxLength: 9 },
      { type: 'integer', minimum: -137, maximum: 4512 },
      { type: 'number', exclusiveMinimum: 0, maximum: 1 },
      {
        anyOf: [
          { type: 'string', format: 'date-time' },
          { const: 'never "said"\n' },
          { type: 'array', prefixItems: [{ type: 'integer' }, { type: 'string', format: 'uuid' }] },
        ],
      },
      { type: ['string', 'null', 'integer'], maxLength: 4, minimum: 5, maximum: 12 },
      {
        $ref: '#/$defs/tree',
        $defs: {
          tree: {
            type: 'object',
            properties: {
              v: { type: 'integer', minimum: 0, maximum: 9 },
              kids: { type: 'array', items: { $ref: '#/$defs/tree' }, maxItems: 2 },
            },
            required: ['v', 'kids'],
            additionalProperties: false,
          },
        },
      },
      {
        oneOf: [
          { type: 'object', properties: { kind: { const: 'a' }, x: { type: 'integer' } }, required: ['kind', 'x'] },
          { type: 'object', properties: { kind: { const: 'b' } }, required: ['kind'] },
        ],
      },
      { type: 'object', additionalProperties: { type: 'boolean' } },
      { type: 'object', required: ['é"\\ü😀'], properties: {} },
      { type: 'string', format: 'date' },
      { type: 'string', format: 'ipv4' },
      { type: 'string', format: 'email' },
      { type: 'string', format: 'time' },
      {},
      { title: 'any', description: 'text' },
    ];
    for (const schema of schemas) {
      const grammar = schemaGrammar(schema, 'schema');
      const fits = ajv.compile(schema);
      for (let round = 0; round < 6; round++) {
        const text = await walker.walk(grammar, random);
        const value: unknown = JSON.parse(text);
        expect(fits(value), `${JSON.stringify(schema)}: ${text}: ${JSON.stringify(fits.errors)}`).to.equal(true);
      }
    }
    for (let round = 0; round < 6; round++)
      expect(JSON.parse(await walker.walk(jsonObjectGrammar(), random))).to.be.an('object');
  });

  it('close what is open before the tokens are used up', async () => {
    const random = lcg(5);
    const { grammars, texts } = walker;
    const book = {
      type: 'object',
      properties: {
        title: { type: 'string' },
        year: { type: 'integer' },
        tags: { type: 'array', items: { type: 'string' } },
      },
      required: ['title', 'year', 'tags'],
      additionalProperties: false,
    };
    const tree = {
      type: 'object',
      properties: { name: { type: 'string' }, kids: { type: 'array', items: { $ref: '#' } } },
      required: ['name', 'kids'],
      additionalProperties: false,
    };
    for (const schema of [
      book,
      { type: 'array', items: book, minItems: 1 },
      tree,
      {},
      { type: 'object', additionalProperties: { type: 'array', items: { type: 'number' } } },
    ])
      for (const tokens of [40, 61, 90])
        for (let round = 0; round < 2; round++) {
          const rows = await grammars.of(schemaGrammar(schema, 's'));
          const constraint = (await rows.constraints(1, tokens))(0);
          const ids: number[] = [];
          let over = false;
          while (!over && ids.length < tokens) {
            const mask = constraint.mask()!;
            // as a model would that never ends by itself, where anything else may come
            const allowed: number[] = [];
            for (let id = 0; id < 4096; id++) if ((mask[id >>> 5]! >>> (id & 31)) & 1) allowed.push(id);
            const others = allowed.filter((id) => id !== END);
            const from = others.length ? others : allowed;
            const id = from[Math.floor(random() * from.length)]!;
            over = constraint.accept(id) || id === END;
            ids.push(id);
          }
          rows.dispose();
          const text = Buffer.concat(ids.filter((id) => id !== END).map((id) => texts.bytes(id))).toString();
          expect(() => JSON.parse(text) as unknown, `${tokens}: ${text}`).not.to.throw();
          expect(over).to.equal(true);
        }
  });

  it('have exactly the whole numbers between two bounds', () => {
    const random = lcg(3);
    for (let round = 0; round < 60; round++) {
      const low = Math.floor((random() - 0.4) * 10 ** (1 + Math.floor(random() * 4)));
      const high = low + Math.floor(random() * 10 ** (1 + Math.floor(random() * 4)));
      const pattern = new RegExp(
        `^(?:${integers(low, high)
          .map((each) => each.replaceAll('"', '').replaceAll(' ', ''))
          .join('|')})$`,
      );
      for (let value = low - 30; value <= high + 30; value += value < low + 30 || value > high - 40 ? 1 : 7)
        expect(pattern.test(String(value)), `${value} in [${low}, ${high}]`).to.equal(value >= low && value <= high);
      expect(pattern.test(`0${high}`)).to.equal(false);
    }
  });

  it('are refused by name where they could not be held to', () => {
    for (const [schema, param] of [
      [{ type: 'strng' }, 's.type'],
      [{ not: {} }, 's.not'],
      [{ $ref: '#/$defs/none' }, 's.$ref'],
      [{ $ref: 'http://example.com/a' }, 's.$ref'],
      [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, 's.oneOf'],
      [{ allOf: [{ type: 'object' }, { type: 'object' }] }, 's.allOf'],
      [{ type: 'integer', minimum: 5, maximum: 4 }, 's'],
      [
        {
          $ref: '#/$defs/a',
          $defs: { a: { type: 'object', properties: { a: { $ref: '#/$defs/a' } }, required: ['a'] } },
        },
        's',
      ],
      [{ type: 'object', patternProperties: { a: {} } }, 's.patternProperties'],
      [{ enum: ['a'], minLength: 3 }, 's.minLength'],
      [{ type: 'string', format: 'iri' }, 's.format'],
      ['x', 's'],
      [false, 's'],
    ] as const) {
      try {
        schemaGrammar(schema, 's');
        expect.fail(JSON.stringify(schema));
      } catch (error) {
        expect(error, JSON.stringify(schema)).to.be.instanceOf(ApiError);
        expect((error as ApiError).param).to.equal(param);
      }
    }
  });
});
