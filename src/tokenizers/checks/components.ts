/** The parts that a tokenizer.json is made of, and what each of them takes. */
import { fromBase64 } from '../../base/bytes.js';
import { anyText, boolean, integer, listOf, named, number, object, oneOf, text } from '../../base/option_kinds.js';
import type { Kind } from '../../base/option_kinds.js';
import { charsMapFault } from './charsmap.js';
import { regexFault } from './regex.js';
import { quote } from '../../base/quote.js';

/** One kind of part: its fields, those it cannot do without, and where further parts are among them. */
export interface Component {
  readonly fields: Readonly<Record<string, Kind>>;
  readonly required?: readonly string[];
  /** field with a list of parts of the same family */
  readonly parts?: string;
  /** What cannot be told of a field alone: a fault, or null. */
  readonly also?: (part: Readonly<Record<string, unknown>>) => string | null;
  /** Whether the tokenizers library is known to hold with whatever passes here; other parts are tried in a process of their own. */
  readonly tame?: boolean;
}

export type Family = Readonly<Record<string, Component>>;

/** Ids beyond this are of no vocabulary, and lists as long would be made for them. */
export const MOST_IDS = 10_000_000;

export const id = integer({ min: 0, max: MOST_IDS - 1 });
/** What is put before or after each piece of a word: a long one is paid for with every token and merge. */
const affix = named('a text of 1000 characters at most', (v) => anyText.ok(v) && (v as string).length <= 1000);
const character = named('one character', (v) => typeof v === 'string' && [...v].length === 1);
const pair = named('[token, id]', (v) => Array.isArray(v) && v.length === 2 && text.ok(v[0]) && id.ok(v[1]));

/** { String } or { Regex } of a pattern. */
const pattern: Kind = named('{ String: a text } or { Regex: a pattern }, not empty', (v) => {
  const { String: plain, Regex: regex } = (object.ok(v) ? v : {}) as { String?: unknown; Regex?: unknown };
  return text.ok(plain) !== text.ok(regex);
});

/** What is wrong with the regular expression of a pattern. */
function patternFault(part: Readonly<Record<string, unknown>>): string | null {
  const { Regex } = part.pattern as { Regex?: string };
  return Regex === undefined ? null : regexFault(Regex);
}

const none: Component = { fields: {}, tame: true };
const byteLevel: Component = {
  fields: { add_prefix_space: boolean, trim_offsets: boolean, use_regex: boolean },
  tame: true,
};
const behavior = oneOf('Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous');
const metaspace: Component = {
  fields: {
    replacement: character,
    prepend_scheme: oneOf('first', 'never', 'always'),
    split: boolean,
    add_prefix_space: boolean,
  },
  required: ['replacement'],
  tame: true,
};
const replace: Component = {
  fields: { pattern, content: anyText },
  required: ['pattern', 'content'],
  also: patternFault,
  tame: true,
};

export const NORMALIZERS: Family = {
  BertNormalizer: {
    fields: { clean_text: boolean, handle_chinese_chars: boolean, strip_accents: boolean, lowercase: boolean },
    tame: true,
  },
  Strip: { fields: { strip_left: boolean, strip_right: boolean }, tame: true },
  StripAccents: none,
  NFC: none,
  NFD: none,
  NFKC: none,
  NFKD: none,
  Sequence: { fields: {}, parts: 'normalizers', tame: true },
  Lowercase: none,
  Nmt: none,
  Precompiled: {
    fields: { precompiled_charsmap: text },
    required: ['precompiled_charsmap'],
    also: (part) => charsMapFault(fromBase64(part.precompiled_charsmap as string)),
  },
  Replace: replace,
  Prepend: { fields: { prepend: text }, required: ['prepend'], tame: true },
  ByteLevel: byteLevel,
};

export const PRE_TOKENIZERS: Family = {
  BertPreTokenizer: none,
  ByteLevel: byteLevel,
  Delimiter: { fields: { delimiter: character }, required: ['delimiter'], tame: true },
  CharDelimiterSplit: { fields: { delimiter: character }, required: ['delimiter'], tame: true },
  Metaspace: metaspace,
  Whitespace: none,
  WhitespaceSplit: none,
  Sequence: { fields: {}, parts: 'pretokenizers', tame: true },
  Split: {
    fields: { pattern, behavior, invert: boolean },
    required: ['pattern', 'behavior'],
    also: patternFault,
    tame: true,
  },
  Punctuation: { fields: { behavior }, tame: true },
  Digits: { fields: { individual_digits: boolean }, tame: true },
  UnicodeScripts: none,
  FixedLength: { fields: { length: integer({ min: 1, max: 1_000_000 }) }, tame: true },
};

const piece = object;
export const POST_PROCESSORS: Family = {
  BertProcessing: { fields: { sep: pair, cls: pair }, required: ['sep', 'cls'], tame: true },
  RobertaProcessing: {
    fields: { sep: pair, cls: pair, trim_offsets: boolean, add_prefix_space: boolean },
    required: ['sep', 'cls'],
    tame: true,
  },
  ByteLevel: byteLevel,
  TemplateProcessing: {
    fields: { single: listOf(piece), pair: listOf(piece), special_tokens: object },
    required: ['single', 'pair', 'special_tokens'],
    also: templateFault,
    tame: true,
  },
  Sequence: { fields: {}, parts: 'processors', tame: true },
};

export const DECODERS: Family = {
  BPEDecoder: { fields: { suffix: affix }, tame: true },
  ByteLevel: byteLevel,
  WordPiece: { fields: { prefix: affix, cleanup: boolean }, tame: true },
  Metaspace: metaspace,
  CTC: { fields: { pad_token: anyText, word_delimiter_token: anyText, cleanup: boolean }, tame: true },
  Sequence: { fields: {}, parts: 'decoders', tame: true },
  Replace: replace,
  Fuse: none,
  Strip: {
    // The library counts back from the end of each token, and beyond the beginning of a short one it aborts.
    fields: { content: character, start: integer({ min: 0, max: 1000 }), stop: named('0', (v) => v === 0) },
    required: ['content', 'start', 'stop'],
    tame: true,
  },
  ByteFallback: none,
};

export const MODELS: Family = {
  BPE: {
    fields: {
      dropout: number({ min: 0, max: 1 }),
      unk_token: anyText,
      continuing_subword_prefix: affix,
      end_of_word_suffix: affix,
      fuse_unk: boolean,
      byte_fallback: boolean,
      ignore_merges: boolean,
      vocab: object,
      merges: named('a list of merges', Array.isArray),
    },
    required: ['vocab', 'merges'],
  },
  WordPiece: {
    fields: {
      unk_token: anyText,
      continuing_subword_prefix: affix,
      max_input_chars_per_word: integer({ min: 0, max: 10_000 }),
      vocab: object,
    },
    required: ['vocab', 'unk_token'],
  },
  WordLevel: { fields: { vocab: object, unk_token: anyText }, required: ['vocab', 'unk_token'] },
  Unigram: {
    fields: { unk_id: id, byte_fallback: boolean, vocab: named('a list of [piece, score]', Array.isArray) },
    required: ['vocab'],
  },
};

export const ADDED_TOKEN: Component = {
  fields: {
    id,
    content: anyText,
    single_word: boolean,
    lstrip: boolean,
    rstrip: boolean,
    normalized: boolean,
    special: boolean,
  },
  required: ['id', 'content'],
};

interface TemplatePiece {
  SpecialToken?: { id?: unknown; type_id?: unknown };
  Sequence?: { id?: unknown; type_id?: unknown };
}

/** Pieces of a template name one of two texts, or a special token that has ids. */
function templateFault(part: Readonly<Record<string, unknown>>): string | null {
  const tokens = part.special_tokens as Record<string, { ids?: unknown; tokens?: unknown } | null>;
  for (const [name, token] of Object.entries(tokens)) {
    const ids = token?.ids;
    const texts = token?.tokens;
    if (!Array.isArray(ids) || !ids.every(id.ok)) return `special_tokens has no ids of ${quote(name)}`;
    if (!Array.isArray(texts) || texts.length !== ids.length || !texts.every(anyText.ok))
      return `special_tokens has not as many tokens as ids of ${quote(name)}`;
  }
  for (const key of ['single', 'pair'] as const) {
    for (const each of part[key] as TemplatePiece[]) {
      const { id: name, type_id } = each.SpecialToken ?? each.Sequence ?? {};
      const known = each.SpecialToken
        ? typeof name === 'string' && Object.hasOwn(tokens, name)
        : name === 'A' || (name === 'B' && key === 'pair');
      if (!known) return `${key} has a piece that is neither a text, 'A' or 'B', nor one of special_tokens`;
      if (!integer({ min: 0, max: 255 }).ok(type_id ?? 0)) return `${key} has a piece with a type_id that is none`;
    }
  }
  return null;
}
