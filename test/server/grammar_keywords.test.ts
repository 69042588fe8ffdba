/** The keywords `pattern`, `multipleOf` and `uniqueItems`: grammars against JavaScript's own expressions, arithmetic, plain lists, and ajv. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect } from 'chai';
import { ApiError } from '../../src/server/errors.js';
import { type Automaton, automatonOf } from '../../src/server/grammar/automaton.js';
import { schemaGrammar } from '../../src/server/grammar/json_schema.js';
import { parseRegex } from '../../src/server/grammar/regex.js';
import { lcg } from '../support/random.js';
import { GrammarWalker } from './grammar_support.js';

/** By plain steps. */
function fits({ states }: Automaton, text: string): boolean {
  let at = 0;
  for (const character of text) {
    const code = character.codePointAt(0)!;
    const edge = states[at]!.edges.find(({ set }) => set.some(([from, to]) => code >= from && code <= to));
    if (!edge) return false;
    at = edge.to;
  }
  return states[at]!.accepts;
}

const PATTERNS = [
  ...[
    '',
    'a',
    '^a',
    'a$',
    '^a$',
    '^$',
    '^(a|b)*$',
    'ab|ba',
    '^a|b$',
    '(^a|b)c?$',
    '^(?:ab?){1,3}$',
    '^[^ab]*$',
    '(?:)b{2}',
  ],
  ...[
    '^\\d{2,3}-\\w+$',
    '\\s',
    '^\\S+@[a-b.]+$',
    '^.b.$',
    '\\D\\W',
    '^[\\d\\-a]+?$',
    '^[a\\]b-]*$',
    '^(?<name>a)b{0}$',
  ],
  ...[
    '^\\u0061\\x62\\u{1F600}?$',
    '\\ud83d\\ude00',
    '[é-ü]',
    '^[^\\s"]*"$',
    '\\\\|\\/',
    '^\\t\\n?\\cA*$',
    '[\\b]',
    'a^',
    '$a',
    '(a$)?b',
  ],
  ...['^(a+b)+$', '^(?:a?){3}$', '^(^a)$', '(?:a|^)b', '[^]', '^[]$|b', '^a{2,}$', '-\\^'],
];
const LETTERS = [...'aabb01-@. \n\t"\\/^$c', 'é', '😀', '\u0001', '\u2028', '\b', '\u00a0'];

describe('keywords of JSON schemas that are more than rules', function () {
  this.timeout(60_000);
  let walker: GrammarWalker;
  before(async () => {
    walker = await GrammarWalker.load();
  });
  const ajv = new Ajv2020({ strict: false });

  it('pattern: automata fit what JavaScript’s expressions fit, of any length and between two', () => {
    const random = lcg(23);
    const texts = ['', ...LETTERS];
    for (const a of LETTERS) for (const b of LETTERS) texts.push(a + b);
    for (let round = 0; round < 1500; round++)
      texts.push(
        Array.from({ length: 3 + random() * 4 }, () => LETTERS[Math.floor(random() * LETTERS.length)]).join(''),
      );
    for (const pattern of PATTERNS) {
      const expected = new RegExp(pattern, 'u');
      for (const { min, max } of [
        { min: 0, max: Infinity },
        { min: 2, max: Infinity },
        { min: 1, max: 3 },
      ]) {
        const automaton = automatonOf(parseRegex(pattern), { min, max });
        for (const text of texts) {
          const length = Array.from(text).length;
          const right = expected.test(text) && length >= min && length <= max;
          expect(
            automaton !== null && fits(automaton, text),
            `/${pattern}/ ${JSON.stringify(text)} ${min}-${max}`,
          ).to.equal(right);
        }
      }
    }
  });

  const SCHEMAS: readonly [schema: object, good: readonly unknown[], bad: readonly unknown[]][] = [
    [{ type: 'string', pattern: '^[A-Z]{2}-\\d{3,5}$' }, ['AB-123', 'ZZ-00000'], ['AB-12', 'AB-123456', 'ab-123', 'xAB-123']],
    [{ type: 'string', pattern: 'the' }, ['the', 'in the house', 'thethe\n"'], ['', 'teh', 'th']],
    [{ type: 'string', pattern: '^[^aeiou]*$', maxLength: 6 }, ['', 'rhythm', 'é"\\😀\n'], ['rhythms', 'bad']],
    [{ type: 'string', pattern: '^(/[a-z]+)+$', minLength: 4 }, ['/usr', '/a/b'], ['/a', 'usr', '/usr/']],
    [{ type: 'string', pattern: '\\.(jpg|png)$', minLength: 6 }, ['ab.jpg', '😀.jpg.png'], ['a.jpg', 'ab.gif', 'ab.jpgx']],
    [{ pattern: '^[\\x00-\\x20\\x7f]+$' }, ['\u0000\u007f \n'], ['a', '']],
    [{ type: 'string', pattern: '^.{2}$' }, ['ab', '中😀', '"\\'], ['a', 'a\n', 'a\u2028', '中\u2029']],
    [{ type: 'string', pattern: '^\\S+@\\S+$' }, ['a@b', '中@é'], ['a b@c', 'a\u00a0@b', '\u3000@b']],
    [{ type: 'string', pattern: '^[\\sé-ü]+$' }, ['é\u00a0ê\u2028', ' '], ['a', 'ā']],
    [{ type: 'object', properties: { a: { type: 'string', pattern: '^.$' }, b: { enum: ['x\u00a0y', '中'] }, c: { type: 'string' } }, required: ['a', 'b', 'c'], additionalProperties: false }, [{ a: '中', b: 'x\u00a0y', c: 'u\u00a0v' }], [{ a: '\u2028', b: '中', c: '' }]],
    [{ type: 'integer', multipleOf: 7 }, [0, 7, -7, 700_000_000_000_000 - 7, 14], [1, -6, 13, 71]],
    [{ type: 'integer', multipleOf: 25, minimum: -60, exclusiveMaximum: 1050 }, [-50, 0, 1025], [-75, 1050, 1000.5, 30]],
    [{ type: 'number', multipleOf: 1000, minimum: 1 }, [1000, 123_000], [0, 100, 1001]],
    [{ type: 'integer', multipleOf: 3, minimum: 4, maximum: 11 }, [6, 9], [3, 12, 7]],
    [{ type: 'array', uniqueItems: true, items: { enum: ['a', 'b', 'c', { x: 1, y: [2] }, { y: [2], x: 1 }] } }, [[], ['c', 'a'], ['b', { x: 1, y: [2] }, 'a', 'c']], [['a', 'a'], ['d'], ['a', 'b', 'a']]],
    [{ type: 'array', uniqueItems: true, minItems: 2, maxItems: 3, items: { type: 'integer', minimum: 1, maximum: 12 } }, [[12, 1], [3, 2, 1]], [[1], [1, 1], [1, 2, 3, 4], [0, 1]]],
    [{ type: 'array', uniqueItems: true, items: { anyOf: [{ $ref: '#/$defs/yes' }, { type: ['boolean', 'null'] }, { const: 5 }] }, $defs: { yes: { const: true } } }, [[], [5, true, null, false]], [[true, true], ['x']]],
    [{ type: 'array', uniqueItems: true, maxItems: 1, items: { type: 'string' } }, [[], ['x']], [['x', 'y']]],
    [{ type: 'array', uniqueItems: false, items: { type: 'null' } }, [[null, null]], [[1]]],
    [{ type: 'object', properties: { id: { type: 'string', pattern: '^u\\d+$' }, n: { type: 'integer', multipleOf: 5, minimum: 0 } }, required: ['id'] }, [{ id: 'u1' }, { id: 'u22', n: 10 }], [{ id: 'x' }, { id: 'u1', n: 4 }]],
  ]; // prettier-ignore

  /** What must come somewhere among any characters does not come by chance. */
  const FAR = new Set(['the', '\\.(jpg|png)$']);

  it('let through texts that fit by ajv, and all that do', async () => {
    const random = lcg(17);
    for (const [schema, good, bad] of SCHEMAS) {
      const grammar = schemaGrammar(schema, 's');
      const valid = ajv.compile(schema);
      const rounds = FAR.has((schema as { pattern?: string }).pattern ?? '') ? 0 : 4;
      for (let round = 0; round < rounds; round++) {
        const text = await walker.walk(grammar, random, { patience: 12, tokens: 80 });
        expect(valid(JSON.parse(text)), `${JSON.stringify(schema)}: ${text}`).to.equal(true);
      }
      for (const [values, right] of [
        [good, true],
        [bad, false],
      ] as const)
        // prettier-ignore
        for (const value of values) {
          const text = JSON.stringify(value).replace(/[\u007f\u00a0\u2028]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
          expect(valid(value), text).to.equal(right);
          expect(await walker.accepts(grammar, text), `${JSON.stringify(schema)}: ${text}`).to.equal(right);
        }
    }
  });

  it('close in time, where a pattern wants something after any number of others', async () => {
    const random = lcg(29);
    for (const pattern of ['^[a-z]+@[a-z]+\\.de$', '^\\d+-\\d+$', '^"[^"]*"$']) {
      const schema = { type: 'object', properties: { a: { type: 'string', pattern } }, required: ['a'] };
      for (let round = 0; round < 3; round++) {
        const text = await walker.walk(schemaGrammar(schema, 's'), random, { patience: Infinity, tokens: 80 });
        expect(ajv.validate(schema, JSON.parse(text)), text).to.equal(true);
      }
    }
  });

  it('multipleOf has exactly the multiples', async () => {
    for (const [of, low, high] of [
      [7, -30, 130],
      [4, 3, 97],
      [10, 95, 1234],
      [12, -1, 11],
    ] as const) {
      // prettier-ignore
      const grammar = schemaGrammar({ type: 'integer', multipleOf: of, minimum: low, maximum: high }, 's');
      for (let value = low - 15; value <= high + 15; value += value < 110 ? 1 : 13)
        expect(await walker.accepts(grammar, String(value)), `${value}`).to.equal(
          value >= low && value <= high && value % of === 0,
        );
    }
  });

  it('are refused by name where they could not be held to', () => {
    for (const [schema, param, code] of [
      [{ type: 'string', pattern: '(?=a)b' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '(?<!a)b' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '(a)\\1' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '(?<n>a)\\k<n>' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '\\bword' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '\\p{L}' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '^[^é]$' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '[一-龥]' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '\\ud800' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '^(a|b)*a(a|b){14}$' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '(((a{99}){99}){99})' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '^ab?c', maxLength: 4000 }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: 'a', format: 'date' }, 's.pattern', 'unsupported_schema'],
      [{ type: 'string', pattern: '(' }, 's.pattern', 'invalid_schema'],
      [{ type: 'string', pattern: 5 }, 's.pattern', 'invalid_schema'],
      [{ type: 'string', pattern: '^a{3}$', maxLength: 2 }, 's', 'invalid_schema'],
      [{ type: 'string', pattern: 'a^' }, 's', 'invalid_schema'],
      [{ type: 'number', multipleOf: 0.01 }, 's.multipleOf', 'unsupported_schema'],
      [{ type: 'integer', multipleOf: 99991 }, 's.multipleOf', 'unsupported_schema'],
      [{ type: 'integer', multipleOf: 0 }, 's.multipleOf', 'invalid_schema'],
      [{ type: 'integer', multipleOf: 9, minimum: 1, maximum: 8 }, 's', 'invalid_schema'],
      [{ type: 'array', uniqueItems: true, items: { type: 'string' } }, 's.uniqueItems', 'unsupported_schema'],
      [{ type: 'array', uniqueItems: true }, 's.uniqueItems', 'unsupported_schema'],
      [
        { type: 'array', uniqueItems: true, items: { type: 'integer', minimum: 1, maximum: 30 } },
        's.uniqueItems',
        'unsupported_schema',
      ],
      [{ type: 'array', uniqueItems: true, prefixItems: [{ const: 1 }] }, 's.uniqueItems', 'unsupported_schema'],
      [{ type: 'array', uniqueItems: true, minItems: 3, items: { type: 'boolean' } }, 's', 'invalid_schema'],
      [{ type: 'array', uniqueItems: 1 }, 's.uniqueItems', 'invalid_schema'],
    ] as const) {
      // prettier-ignore
      try {
        schemaGrammar(schema, 's');
      } catch (error) {
        expect(error, JSON.stringify(schema)).to.be.instanceOf(ApiError);
        const { param: named, code: told } = error as ApiError;
        expect([named, told], JSON.stringify(schema)).to.deep.equal([param, code]);
        continue;
      }
      expect.fail(`Not refused: ${JSON.stringify(schema)}`);
    }
  });
});
