import { expect } from 'chai';
import { ConfigError } from '../../src/base/errors.js';
import * as kinds from '../../src/base/option_kinds.js';
import { OptionTable } from '../../src/base/options.js';
import { plain, quote } from '../../src/base/quote.js';
import { thrown } from '../support/errors.js';

interface Sample {
  learning_rate?: number;
  peft_config?: object | null;
  engine?: 'eager' | 'compiled';
  dtype?: 'float32' | 'bfloat16';
}

const TABLE = new OptionTable<Sample>(
  'new Sample()',
  {
    learning_rate: { kind: kinds.number({ above: 0 }), default: 5e-5 },
    peft_config: { kind: kinds.orNull(kinds.object) },
    engine: { kind: kinds.oneOf('eager', 'compiled') },
    dtype: { kind: kinds.oneOf('float32', 'bfloat16') },
  },
  {
    error: ConfigError,
    others: { lr: 'learning_rate', load_in_4bit: { why: 'pass quantization_config', off: [false] } },
    clashes: [
      {
        option: 'dtype',
        when: ({ engine, dtype }) => engine === 'eager' && dtype === 'bfloat16',
        why: "which has no effect with engine 'eager': it computes in float32",
      },
    ],
  },
);

function refusal(options: object): ConfigError {
  const error = thrown(() => TABLE.check(options));
  expect(error).to.be.instanceOf(ConfigError);
  return error as ConfigError;
}
const message = (options: object): string => refusal(options).message;

describe('tables of options', () => {
  it('take what they list, and undefined for what is not given', () => {
    TABLE.check(undefined);
    TABLE.check({});
    TABLE.check({ learning_rate: 1e-3, peft_config: null, engine: undefined });
    expect(TABLE.fill({ engine: 'eager' })).to.deep.equal({ learning_rate: 5e-5, engine: 'eager' });
    expect(TABLE.fill<'learning_rate'>({ learning_rate: 1 }).learning_rate).to.equal(1);
  });

  it('refuse an unknown name, with the one that was meant', () => {
    expect(message({ peft_confg: {} })).to.equal('new Sample() has no option peft_confg. Did you mean peft_config?');
    expect(message({ peftConfig: {} })).to.include('Did you mean peft_config?');
    expect(message({ lr: 1 })).to.equal('new Sample() has no option lr. It is called learning_rate here.');
    expect(message({ rate: 1 })).to.include('Did you mean learning_rate?');
    expect(message({ zzz: undefined })).to.include('It takes learning_rate, peft_config, engine, dtype.');
    // what every object has is no option
    for (const name of ['toString', 'constructor', 'hasOwnProperty']) expect(message({ [name]: 1 })).to.include(name);
  });

  it('refuse what other libraries have and this package has not, unless it is off', () => {
    expect(message({ load_in_4bit: true })).to.include('not supported: pass quantization_config');
    TABLE.check({ load_in_4bit: false } as Sample);
  });

  it('refuse a wrong type or value by name, and what has no effect', () => {
    expect(message({ learning_rate: '1' })).to.equal('new Sample(): learning_rate is "1"; expected a number above 0.');
    expect(message({ learning_rate: NaN })).to.include('learning_rate is NaN');
    expect(message({ engine: 'fast' })).to.include("expected 'eager' or 'compiled'");
    expect(message({ engine: 'eager', dtype: 'bfloat16' })).to.include('no effect');
    expect(refusal({ learning_rate: 0 }).data).to.deep.equal({
      option: 'learning_rate',
      got: 0,
      expected: 'a number above 0',
    });
  });

  it('refuse what is no object of options', () => {
    for (const wrong of [null, 'text', 3, [1], () => 1])
      expect(message(wrong as object)).to.include('where its options belong');
  });
});

describe('kinds of options', () => {
  it('say what they expect', () => {
    const { integer, number, listOf, text, either } = kinds;
    expect(integer({ min: 1 }).expected).to.equal('an integer of 1 or more');
    expect(number({ min: 0, max: 1 }).expected).to.equal('a number from 0 to 1');
    expect(number({ above: 0, max: 1 }).expected).to.equal('a number above 0 and at most 1');
    expect(number({ min: 0, below: 1 }).expected).to.equal('a number of 0 or more and below 1');
    expect(listOf(text, 'names', 1).expected).to.equal('a list of at least one of names');
    expect(either(text, integer()).expected).to.equal('a text, or an integer');
    expect(listOf(text, undefined, 1).ok([])).to.equal(false);
    expect(number({ min: 0, below: 1 }).ok(1)).to.equal(false);
    expect(kinds.abortSignal.ok(new AbortController().signal)).to.equal(true);
    expect(kinds.abortSignal.ok({})).to.equal(false);
  });
});

describe('what a message cites', () => {
  it('is one line of bounded length that a terminal does not obey', () => {
    expect(quote('a\u001b[2J\n')).to.equal('"a\\u001b[2J\\n"');
    expect(plain('a\u001b]0;x\u0007\u202eb')).to.equal('a\\u001b]0;x\\u0007\\u202eb');
    expect(quote('x'.repeat(2_000_000)).length).to.equal(80);
    expect(quote('\ud800')).to.equal('"\\ud800"');
  });

  it('is shown whatever the value is', () => {
    let deep: unknown = 1;
    for (let level = 0; level < 100_000; level++) deep = [deep];
    expect(quote(deep)).to.equal('[[[[…]]]]');
    const round: Record<string, unknown> = {};
    round.self = round;
    expect(quote(round)).to.be.a('string');
    expect(quote([1, undefined, 2n, NaN, null])).to.equal('[1,undefined,2n,NaN,null]');
    expect(quote(new Float32Array(3))).to.equal('Float32Array[0,0,0]');
    expect(quote({ rank: 1, dtype: 'int32', shape: [3] })).to.equal('a tensor of shape [3]');
    const throws = {
      get x(): number {
        throw new Error('no');
      },
    };
    expect(quote(throws)).to.equal('an object');
    expect(quote(new Map())).to.equal('a Map');
  });
});
