/** Small tokenizers of every kind of part that a tokenizer.json may have. */
import { readFileSync } from 'node:fs';
import type { TokenizerJson } from '../../../src/tokenizers/backend.js';
import { convertSentencePiece } from '../../../src/tokenizers/sentencepiece.js';

const WORDS = [
  '[UNK]',
  '[CLS]',
  '[SEP]',
  'hello',
  'world',
  '##s',
  '##l',
  'h',
  'e',
  'l',
  'o',
  'w',
  '!',
  ',',
  '1',
  '2',
  '中',
];
const ids = (words: readonly string[]): Record<string, number> =>
  Object.fromEntries(words.map((word, id) => [word, id]));

function tokenizer(parts: Partial<TokenizerJson>): TokenizerJson {
  return {
    ...{ version: '1.0', truncation: null, padding: null, added_tokens: [] },
    ...{ normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...parts },
  };
}

const special = (id: number, content: string): NonNullable<TokenizerJson['added_tokens']>[number] => ({
  ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
});

const bert = tokenizer({
  added_tokens: [special(0, '[UNK]'), special(1, '[CLS]'), special(2, '[SEP]')],
  normalizer: {
    type: 'BertNormalizer',
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  },
  pre_tokenizer: { type: 'BertPreTokenizer' },
  post_processor: { type: 'BertProcessing', sep: ['[SEP]', 2], cls: ['[CLS]', 1] },
  decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
  model: {
    ...{ type: 'WordPiece', unk_token: '[UNK]', continuing_subword_prefix: '##', max_input_chars_per_word: 100 },
    vocab: ids(WORDS),
  },
});

const words = tokenizer({
  added_tokens: [
    special(0, '[UNK]'),
    { ...special(20, '<x>'), lstrip: true, rstrip: true, special: false, single_word: true },
  ],
  normalizer: {
    type: 'Sequence',
    normalizers: [
      ...['NFC', 'NFD', 'NFKC', 'NFKD', 'StripAccents', 'Lowercase'].map((type) => ({ type })),
      { type: 'Strip', strip_left: true, strip_right: true },
      { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' },
      { type: 'Replace', pattern: { String: '`' }, content: "'" },
      { type: 'Prepend', prepend: ' ' },
    ],
  },
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'WhitespaceSplit' },
      { type: 'Split', pattern: { Regex: '\\d{1,3}(?=(?:\\d{3})*\\b)' }, behavior: 'Isolated', invert: false },
      { type: 'Split', pattern: { String: '-' }, behavior: 'MergedWithPrevious', invert: false },
      { type: 'Punctuation', behavior: 'Isolated' },
      { type: 'Digits', individual_digits: true },
      { type: 'CharDelimiterSplit', delimiter: '_' },
      { type: 'Whitespace' },
    ],
  },
  post_processor: {
    type: 'Sequence',
    processors: [
      { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false, use_regex: true },
      { type: 'RobertaProcessing', sep: ['[SEP]', 2], cls: ['[CLS]', 1], trim_offsets: true, add_prefix_space: true },
    ],
  },
  decoder: { type: 'CTC', pad_token: '[UNK]', word_delimiter_token: '|', cleanup: true },
  model: { type: 'WordLevel', unk_token: '[UNK]', vocab: ids(WORDS) } as TokenizerJson['model'],
});

/** Parts that the tokenizers library has and its stand-in in JavaScript has not. */
const native = tokenizer({
  ...words,
  normalizer: { type: 'Nmt' },
  pre_tokenizer: { type: 'UnicodeScripts' },
});

const fixed = tokenizer({
  pre_tokenizer: { type: 'FixedLength', length: 3 },
  decoder: {
    type: 'Sequence',
    decoders: [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ],
  },
  model: {
    ...{ type: 'BPE', dropout: null, unk_token: 'u', continuing_subword_prefix: '', end_of_word_suffix: '' },
    ...{ fuse_unk: true, byte_fallback: true, ignore_merges: true },
    ...{
      vocab: ids(['u', 'a', 'b', 'ab', 'c', '<0x41>', '<0xE4>', 'abc']),
      merges: [
        ['a', 'b'],
        ['ab', 'c'],
      ],
    },
  },
});

const subwords = tokenizer({
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: true },
  decoder: { type: 'BPEDecoder', suffix: '</w>' },
  model: {
    ...{ type: 'BPE', dropout: null, unk_token: 'u', continuing_subword_prefix: '@', end_of_word_suffix: '</w>' },
    ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false },
    ...{ vocab: ids(['u', 'a', '@b', 'ab', '@c</w>', 'abc</w>', '▁']), merges: ['a @b', 'ab @c</w>'] },
  },
});

const files = (): TokenizerJson[] =>
  ['mistral', 'bpe-nmt', 'unigram'].map(
    (name) => convertSentencePiece(readFileSync(`test/fixtures/sentencepiece/${name}.model`), name).tokenizer,
  );

/** Each kind of part in one of them, and those that are made of SentencePiece models. */
export function sampleTokenizers(): TokenizerJson[] {
  return [bert, words, native, fixed, subwords, ...files()];
}
