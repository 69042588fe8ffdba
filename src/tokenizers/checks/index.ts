/**
 * Checks of a tokenizer.json before a tokenizer is made of it: the native library aborts the process on what it does not expect, the one in
 * JavaScript hangs or fails anywhere. What passes and is of kinds that are known to hold is loaded at once; the rest is tried in a process
 * of its own first (probe.ts).
 */
import { TokenizerError } from '../../base/errors.js';
import { quote } from '../../base/quote.js';
import type { TokenizerJson } from '../backend.js';
import {
  ADDED_TOKEN,
  DECODERS,
  id,
  MODELS,
  MOST_IDS,
  NORMALIZERS,
  POST_PROCESSORS,
  PRE_TOKENIZERS,
} from './components.js';
import type { Component, Family } from './components.js';

type Fields = Readonly<Record<string, unknown>>;

export const UNUSABLE = 'is not a tokenizer that can be used';
export const EXPECTED = 'Expected the tokenizer.json that the tokenizers library writes.';

/** Deepest nesting of parts; public tokenizers have two levels. */
const DEEPEST = 12;
/** Most parts of all: each is run over every text. */
const MOST_PARTS = 1000;

const isId = (value: unknown): boolean =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < MOST_IDS;

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** One walk over a tokenizer.json. */
class Check {
  /** Whether every part is of a kind that is known to hold. */
  tame = true;
  private parts = 0;

  constructor(private readonly file: string) {}

  fault(path: string, value: unknown, expected: string): TokenizerError {
    return new TokenizerError(
      `${this.file} ${UNUSABLE}: ${path} is ${quote(value)}; expected ${expected}. ${EXPECTED}`,
      { file: this.file, path, got: value },
    );
  }

  /** A part of a family, and those in it. */
  part(value: unknown, family: Family, path: string, depth = 0): void {
    if (value === null || value === undefined) return;
    if (!isObject(value)) throw this.fault(path, value, 'an object with a type');
    if (++this.parts > MOST_PARTS) throw this.fault(path, value, `no more than ${MOST_PARTS} parts`);
    const { type } = value;
    const component = typeof type === 'string' && Object.hasOwn(family, type) ? family[type] : undefined;
    if (!component) throw this.fault(`${path}.type`, type, `one of ${Object.keys(family).join(', ')}`);
    this.fields(value, component, path);
    if (component.parts === undefined) return;
    const list = value[component.parts];
    if (!Array.isArray(list)) throw this.fault(`${path}.${component.parts}`, list, 'a list');
    if (depth >= DEEPEST) throw this.fault(path, type, `parts that are nested no deeper than ${DEEPEST}`);
    list.forEach((each, i) => {
      if (!isObject(each)) throw this.fault(`${path}.${component.parts}[${i}]`, each, 'an object with a type');
      this.part(each, family, `${path}.${component.parts}[${i}]`, depth + 1);
    });
  }

  fields(value: Fields, component: Component, path: string): void {
    for (const name of component.required ?? []) {
      if (value[name] === undefined || value[name] === null)
        throw this.fault(`${path}.${name}`, value[name], component.fields[name]?.expected ?? 'a value');
    }
    for (const [name, kind] of Object.entries(component.fields)) {
      const field = value[name];
      if (field !== undefined && field !== null && !kind.ok(field))
        throw this.fault(`${path}.${name}`, field, kind.expected);
    }
    const also = component.also?.(value);
    if (also)
      throw new TokenizerError(`${this.file} ${UNUSABLE}: ${path} ${also}. ${EXPECTED}`, { file: this.file, path });
    if (!component.tame) this.tame = false;
  }

  model(value: unknown): void {
    if (!isObject(value)) throw this.fault('model', value, 'an object');
    const type = typeof value.type === 'string' ? value.type : kindOf(value);
    const component = Object.hasOwn(MODELS, type) ? MODELS[type] : undefined;
    if (!component) throw this.fault('model.type', value.type, `one of ${Object.keys(MODELS).join(', ')}`);
    const before = this.tame;
    this.fields(value, component, 'model');
    if (type === 'Unigram') return this.pieces(value);
    const plain = !value.continuing_subword_prefix && !value.end_of_word_suffix;
    this.tame = before && (type !== 'BPE' || plain);
    const vocab = value.vocab as Fields;
    // by its values first, which is quick: a vocabulary has a hundred thousand
    if (!Object.values(vocab).every(isId)) {
      const token = Object.keys(vocab).find((each) => !isId(vocab[each]))!;
      throw this.fault(`model.vocab[${quote(token)}]`, vocab[token], id.expected);
    }
    // without a prefix the library sees for itself that merges are of tokens
    if (type === 'BPE' && value.continuing_subword_prefix) this.merges(value, vocab);
  }

  /** Merges join two tokens of the vocabulary into a third one. */
  private merges(model: Fields, vocab: Fields): void {
    const prefix = (model.continuing_subword_prefix as string | null | undefined) ?? '';
    const known = (token: string): boolean => Object.hasOwn(vocab, token);
    (model.merges as unknown[]).forEach((merge, i) => {
      const split = typeof merge === 'string' ? merge.split(' ') : merge;
      const [left, right] = Array.isArray(split) && split.length === 2 ? (split as unknown[]) : [];
      if (typeof left !== 'string' || typeof right !== 'string')
        throw this.fault(`model.merges[${i}]`, merge, 'two tokens');
      if (prefix !== '' && !right.startsWith(prefix))
        throw this.fault(
          `model.merges[${i}]`,
          merge,
          `a second token with the continuing_subword_prefix ${quote(prefix)}`,
        );
      for (const token of [left, right, left + right.slice(prefix.length)])
        if (!known(token)) throw this.fault(`model.merges[${i}]`, merge, `tokens of the vocabulary, and ${quote(token)} is none`); // prettier-ignore
    });
  }

  /** Pieces of a unigram model with their scores. */
  private pieces(model: Fields): void {
    const vocab = model.vocab as unknown[];
    if (vocab.length === 0 || vocab.length > MOST_IDS) throw this.fault('model.vocab', vocab, 'a list of pieces');
    vocab.forEach((entry, i) => {
      const [piece, score] = Array.isArray(entry) && entry.length === 2 ? (entry as unknown[]) : [];
      if (typeof piece !== 'string' || piece === '' || typeof score !== 'number' || !Number.isFinite(score))
        throw this.fault(`model.vocab[${i}]`, entry, '[piece, score]');
    });
    const unk = model.unk_id as number | null | undefined;
    if (unk != null && unk >= vocab.length) throw this.fault('model.unk_id', unk, `an id below ${vocab.length}`);
  }
}

/** The kind of a model that does not say it, as files of old are. */
function kindOf(model: Fields): string {
  if (Array.isArray(model.vocab)) return 'Unigram';
  if (Array.isArray(model.merges)) return 'BPE';
  return 'max_input_chars_per_word' in model ? 'WordPiece' : 'WordLevel';
}

/**
 * Checks a tokenizer.json.
 * @param file its name, for messages
 * @returns whether all of it is known to hold in the native library
 * @throws TokenizerError naming the part that is wrong
 */
export function checkTokenizerJson(json: TokenizerJson, file: string): boolean {
  const check = new Check(file);
  check.model(json.model);
  check.part(json.normalizer, NORMALIZERS, 'normalizer');
  check.part(json.pre_tokenizer, PRE_TOKENIZERS, 'pre_tokenizer');
  check.part(json.post_processor, POST_PROCESSORS, 'post_processor');
  check.part(json.decoder, DECODERS, 'decoder');
  const added: unknown = json.added_tokens ?? [];
  if (!Array.isArray(added)) throw check.fault('added_tokens', added, 'a list of tokens');
  const tame = check.tame;
  added.forEach((token: unknown, i) => {
    if (!isObject(token)) throw check.fault(`added_tokens[${i}]`, token, 'an object with id and content');
    check.fields(token, ADDED_TOKEN, `added_tokens[${i}]`);
  });
  return tame;
}

/** Whether a text may have a token in the middle of words that is a word of its own: the stand-in does not look. */
const isWord = (token: Fields): boolean => token.single_word === true;

/**
 * Refuses what the stand-in in JavaScript would take and do otherwise, without a word.
 * @throws TokenizerError
 */
export function checkForJavaScript(json: TokenizerJson, file: string): void {
  const { type, byte_fallback, continuing_subword_prefix, dropout, fuse_unk, unk_token } = (json.model ?? {}) as Fields;
  // it joins unknown tokens of neighbouring words, too
  const joins = fuse_unk === true && byte_fallback !== true && Boolean(unk_token) && Boolean(json.pre_tokenizer);
  const what =
    type === 'Unigram' && byte_fallback === true
      ? 'byte_fallback of a unigram model'
      : type === 'BPE' && Boolean(continuing_subword_prefix)
        ? 'continuing_subword_prefix of a BPE model'
        : type === 'BPE' && Boolean(dropout)
          ? 'dropout of a BPE model'
          : type === 'BPE' && joins
            ? 'fuse_unk of a BPE model with a pre_tokenizer'
            : json.added_tokens?.some(isWord)
              ? 'single_word of an added token'
              : null;
  if (what === null) return;
  throw new TokenizerError(
    `${file} needs ${what}, which the tokenizer in JavaScript does not have: it would give other ids. Use the native one, by leaving the ` +
      `option backend out.`,
    { file, option: 'backend' },
  );
}
