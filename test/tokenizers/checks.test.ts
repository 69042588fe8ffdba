import { mkdtemp, readFile, rm, writeFile, readdir, cp } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { TokenizerError } from '../../src/base/errors.js';
import type { TokenizerJson } from '../../src/tokenizers/backend.js';
import { charsMapFault } from '../../src/tokenizers/checks/charsmap.js';
import { checkTokenizerJson } from '../../src/tokenizers/checks/index.js';
import { holds } from '../../src/tokenizers/checks/probe.js';
import { regexFault } from '../../src/tokenizers/checks/regex.js';
import { convertSentencePiece } from '../../src/tokenizers/sentencepiece.js';
import { Tokenizer } from '../../src/tokenizers/index.js';
import { rejection } from '../support/errors.js';

const MODEL = 'models/tiny-books-mamba2';
const KNOWN = [
  // GPT-2, Llama 3, GPT-4o, BLOOM, DeepSeek, Qwen, Kimi, Command R, and pieces of others
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ' ?[^(\\s|[.,!?…。，、।۔،])]+',
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
  "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{M}&&[^\\p{Han}]]*[\\p{Ll}\\p{M}&&[^\\p{Han}]]+(?i:'s)?|\\s+",
  '\\d{1,3}(?=(?:\\d{3})*\\b)',
  '(?:\\p{L}\\p{M}*)+',
  '\\p{L}++| ?\\p{N}*+',
  '[一-龥぀-ゟ゠-ヿ]+',
  '[^\\n]+|[\\n]+',
  ' {2,}',
];
const SLOW = [
  ...['(a+)+$', '(a|a)*b', '(\\s|\\s)*x', '(.*)*', '([a-z]+)*\\d', '(a{1,3})*b', '(?:\\w+\\s?)+$', '(a*b*)*c'],
  ...['(x+x+)+y', '(a|aa)+$', '(.*?,){11}P', '(?=(a+)+$)x', '(?:a|\\p{L})+b', '(?i:a|A)+b', '((a{1,99}){1,99}){1,99}'],
  ...['\\s*\\s*\\s*x', '(a)\\1', '([', '(?:(?:(?:a)?)*)*', '[a-', 'a**b(a*)*'],
];

async function tiny(): Promise<TokenizerJson & { model: Record<string, unknown> }> {
  return JSON.parse(await readFile(`${MODEL}/tokenizer.json`, 'utf8')) as TokenizerJson & {
    model: Record<string, unknown>;
  };
}

const split = (Regex: string): unknown => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false });
const nested = (depth: number): unknown =>
  depth === 0 ? { type: 'NFC' } : { type: 'Sequence', normalizers: [nested(depth - 1)] };

/** Files that aborted the process or hung, and their kin. */
const BROKEN: [string, (json: Awaited<ReturnType<typeof tiny>>) => unknown, string][] = [
  [
    'a charsmap that is none',
    () => ({ normalizer: { type: 'Precompiled', precompiled_charsmap: 'ABCD' } }),
    'charsmap',
  ],
  ['a charsmap of another type', () => ({ normalizer: { type: 'Precompiled', precompiled_charsmap: 7 } }), 'charsmap'],
  ['a length of 0', () => ({ pre_tokenizer: { type: 'FixedLength', length: 0 } }), 'length'],
  [
    'an empty text to replace',
    () => ({ normalizer: { type: 'Replace', pattern: { String: '' }, content: 'x' } }),
    'pattern',
  ],
  [
    'an empty regex to replace',
    () => ({ decoder: { type: 'Replace', pattern: { Regex: '' }, content: 'x' } }),
    'pattern',
  ],
  ['a strip of a million', () => ({ decoder: { type: 'Strip', content: ' ', start: 0, stop: 1_000_000 } }), 'stop'],
  ['a start of a million', () => ({ decoder: { type: 'Strip', content: ' ', start: 1_000_000, stop: 0 } }), 'start'],
  [
    'a suffix of a hundred thousand characters',
    ({ model }) => ({ model: { ...model, end_of_word_suffix: 'x'.repeat(100_000) } }),
    'end_of_word_suffix',
  ],
  ['a prefix of subwords', ({ model }) => ({ model: { ...model, continuing_subword_prefix: '##' } }), 'prefix'],
  ['a slow regex', () => ({ pre_tokenizer: split('(a+)+$') }), 'doubles'],
  [
    'a slow regex in a sequence',
    () => ({ pre_tokenizer: { type: 'Sequence', pretokenizers: [split('(\\s|\\s)*x')] } }),
    'doubles',
  ],
  [
    'a slow regex to replace',
    () => ({ normalizer: { type: 'Replace', pattern: { Regex: '(a|a)*b' }, content: '' } }),
    'doubles',
  ],
  [
    'a slow regex of a decoder',
    () => ({ decoder: { type: 'Replace', pattern: { Regex: '(a|a)*b' }, content: '' } }),
    'doubles',
  ],
  [
    'an id of 2^31',
    ({ model }) => ({ model: { ...model, vocab: { ...(model.vocab as object), zz: 2 ** 31 } } }),
    'vocab',
  ],
  ['an id below 0', ({ model }) => ({ model: { ...model, vocab: { ...(model.vocab as object), zz: -1 } } }), 'vocab'],
  [
    'an added id of 2^31',
    () => ({ added_tokens: [{ id: 2 ** 31, content: 'x', special: true }] }),
    'added_tokens[0].id',
  ],
  ['a part in a part in a part', () => ({ normalizer: nested(100) }), 'nested'],
  ['a part of no known type', () => ({ normalizer: { type: 'Oracle' } }), 'Oracle'],
  ['a part that is a text', () => ({ decoder: 'ByteLevel' }), 'decoder'],
  ['a template without ids', () => ({ post_processor: { type: 'TemplateProcessing', single: [{ SpecialToken: { id: 'x', type_id: 0 } }], pair: [], special_tokens: {} } }), 'single'], // prettier-ignore
  ['a template that is null', () => ({ post_processor: { type: 'TemplateProcessing', single: null, pair: [], special_tokens: {} } }), 'single'], // prettier-ignore
  ['a unigram model without pieces', () => ({ model: { type: 'Unigram', unk_id: 0, vocab: [] } }), 'vocab'],
  ['an unknown id that is none', () => ({ model: { type: 'Unigram', unk_id: 5, vocab: [['a', 0]] } }), 'unk_id'],
  ['a piece without text', () => ({ model: { type: 'Unigram', unk_id: 0, vocab: [['', 0]] } }), 'vocab[0]'],
];

describe('checks of tokenizer files', () => {
  for (const backend of ['native', 'javascript'] as const) {
    it(`refuse what aborts or hangs an implementation (${backend})`, async () => {
      const json = await tiny();
      for (const [what, change, part] of BROKEN) {
        const tokenizer = { ...json, ...(change(json) as object) };
        const files = { source: 'here', tokenizer, config: {}, special_tokens_map: {}, chat_templates: {} };
        const error = await rejection(Tokenizer.from_files(files, { backend }));
        expect(error, what).to.be.instanceOf(TokenizerError);
        expect(error.message, what).to.include(part);
        expect(error.message.length, what).to.be.lessThan(600);
      }
    });
  }

  it('know the patterns of public tokenizers, and which patterns are slow', () => {
    for (const pattern of KNOWN) expect(regexFault(pattern), pattern).to.equal(null);
    for (const pattern of SLOW) expect(regexFault(pattern), pattern).to.be.a('string');
    expect(regexFault('('.repeat(100_000))).to.be.a('string');
    expect(regexFault('(a{1,999}){1,999}b{999}')).to.be.a('string');
  });

  it('hold the packaged tokenizer for tame, and take little time', async () => {
    const json = await tiny();
    checkTokenizerJson(json, 'tiny');
    const start = performance.now();
    for (let i = 0; i < 20; i++) expect(checkTokenizerJson(json, 'tiny')).to.equal(true);
    expect((performance.now() - start) / 20).to.be.lessThan(10);
  });

  it('follow a charsmap wherever it may lead', async () => {
    const { tokenizer } = convertSentencePiece(
      await readFile('test/fixtures/sentencepiece/bpe-nmt.model'),
      'bpe-nmt.model',
    );
    const [{ precompiled_charsmap }] = (tokenizer.normalizer as { normalizers: [{ precompiled_charsmap: string }] })
      .normalizers;
    const whole = Buffer.from(precompiled_charsmap, 'base64');
    expect(charsMapFault(whole)).to.equal(null);
    expect(charsMapFault(whole.subarray(0, 3))).to.be.a('string');
    expect(charsMapFault(whole.subarray(0, whole.length - 5000))).to.be.a('string');
    const root = Buffer.from(whole);
    root.writeUInt32LE(0xfffffc00, 4);
    expect(charsMapFault(root)).to.include('outside');
    const text = Buffer.from(whole);
    text[text.length - 2] = 0xff;
    expect(charsMapFault(text)).to.include('UTF-8');
  });
});

describe('trying a tokenizer in a process of its own', () => {
  let cache: string;
  let before: string | undefined;
  beforeEach(async () => {
    cache = await mkdtemp(path.join(os.tmpdir(), 'probe-'));
    before = process.env.XDG_CACHE_HOME;
    process.env.XDG_CACHE_HOME = cache;
  });
  afterEach(async () => {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
    await rm(cache, { recursive: true });
  });

  const marks = (): Promise<string[]> => readdir(path.join(cache, 'tfjs-mamba2', 'tokenizers')).catch(() => []);

  it('outlives an abort and remembers what holds', async () => {
    const json = await tiny();
    for (const [part, why] of [
      [{ pre_tokenizer: { type: 'FixedLength', length: 0 } }, 'encoding a text ends the tokenizers library'],
      [{ pre_tokenizer: split('(a+)+$') }, 'retry-limit'],
      [{ normalizer: { type: 'Precompiled', precompiled_charsmap: 'ABCD' } }, 'loading it ends the tokenizers library'],
      [{ model: { type: 'Oracle' } }, 'here is not'],
    ] as const) {
      const error = await rejection(holds(JSON.stringify({ ...json, ...part }), 'here'));
      expect(error).to.be.instanceOf(TokenizerError);
      expect(error.message).to.include(why);
    }
    expect(await marks()).to.deep.equal([]);
    expect(await holds(JSON.stringify(json), 'here')).to.equal(true);
    expect((await marks()).length).to.equal(1);
  });

  it('takes the stand-in in JavaScript where no process can be started', async () => {
    await cp('test/fixtures/sentencepiece/bpe-nmt.model', path.join(cache, 'tokenizer.model'));
    await writeFile(
      path.join(cache, 'tokenizer_config.json'),
      JSON.stringify({ add_prefix_space: true, cls_token: 'x' }),
    );
    const node = process.execPath;
    process.execPath = path.join(cache, 'no-such-program');
    try {
      expect((await Tokenizer.from_pretrained(cache)).backend_name).to.equal('javascript');
      expect((await Tokenizer.from_pretrained(cache, { backend: 'native' })).backend_name).to.equal('native');
    } finally {
      process.execPath = node;
    }
  });
});
