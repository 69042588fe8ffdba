/**
 * Tokens that tokenizer_config.json or special_tokens_map.json knows beside those of tokenizer.json, as transformers adds them
 * when it loads a tokenizer (tokenization_utils_tokenizers.py): those of added_tokens_decoder, then the named special tokens, then
 * the extra ones. Each new one gets the next free id.
 */
import type { AddedTokenJson, TokenizerJson } from './backend.js';
import { contentOf, namedTokens, SPECIAL_TOKEN_NAMES } from './special_tokens.js';

type Config = Readonly<Record<string, unknown>>;

const FLAGS = ['single_word', 'lstrip', 'rstrip', 'normalized', 'special'] as const;
/** Of a token that is given as a text. */
const SPECIAL = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A token with its flags, from a text or an object with `content`; null for what is none. */
function tokenOf(value: unknown): Omit<AddedTokenJson, 'id'> | null {
  const content = contentOf(value);
  if (content === undefined || content === '') return null;
  const given = isObject(value) ? value : {};
  const flags = FLAGS.map((flag) => [flag, typeof given[flag] === 'boolean' ? given[flag] : SPECIAL[flag]]);
  return { content, ...(Object.fromEntries(flags) as typeof SPECIAL) };
}

/** Ids of the model's own vocabulary: a record, or the pairs of a unigram model in their order. */
function vocabularyOf(tokenizer: TokenizerJson): { size: number; idOf(token: string): number | undefined } {
  const vocab = tokenizer.model?.vocab;
  if (Array.isArray(vocab)) {
    const ids = new Map(vocab.map((entry: unknown, id) => [Array.isArray(entry) ? String(entry[0]) : '', id]));
    return { size: vocab.length, idOf: (token) => ids.get(token) };
  }
  const record = isObject(vocab) ? (vocab as Record<string, number>) : {};
  return {
    size: Object.keys(record).length,
    idOf: (token) => (Object.hasOwn(record, token) ? record[token] : undefined),
  };
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? [...(value as unknown[])] : [];
}

/** A token under a name that ends in _token: a text, or an object that says that it is one. */
const isAddedToken = (value: unknown): boolean =>
  typeof value === 'string' || (isObject(value) && value.__type === 'AddedToken');

/** The tokens in the order in which they are added. Those of added_tokens_decoder also set the flags of a token that is there. */
function configuredTokens(config: Config, map: Config): { decoder: unknown[]; named: unknown[]; extra: unknown[] } {
  const decoder = isObject(config.added_tokens_decoder) ? Object.entries(config.added_tokens_decoder) : [];
  decoder.sort(([a], [b]) => Number(a) - Number(b));
  // by name in transformers 5: those of the usual names are these, others follow
  const byName = isObject(config.extra_special_tokens) ? config.extra_special_tokens : {};
  const usual: readonly string[] = SPECIAL_TOKEN_NAMES;
  const extra = listOf(config.extra_special_tokens);
  // the older name, which counts where the newer one has no list
  if (extra.length === 0) extra.push(...listOf(config.additional_special_tokens ?? map.additional_special_tokens));
  const specific = { ...(isObject(config.model_specific_special_tokens) && config.model_specific_special_tokens) };
  for (const [name, token] of Object.entries(config)) if (name.endsWith('_token') && isAddedToken(token)) specific[name] = token; // prettier-ignore
  for (const [name, token] of Object.entries({ ...specific, ...byName })) specific[name] = token;
  const all = namedTokens({ config: { ...config }, special_tokens_map: { ...map } });
  const others = Object.entries(specific).flatMap(([name, token]) => (usual.includes(name) ? [] : [token]));
  const named = [...usual.map((name) => all[name]), ...others];
  return { decoder: decoder.map(([, token]) => token), named, extra };
}

/** GPT-NeoX' and GPT-2's tokenizers take add_prefix_space from the configuration; others go by tokenizer.json alone. */
const TAKES_PREFIX_SPACE = /^GPT(?:NeoX|2)Tokenizer(?:Fast)?$/;

function withPrefixSpace(preTokenizer: unknown, add: boolean): unknown {
  if (!isObject(preTokenizer)) return preTokenizer;
  if (preTokenizer.type === 'ByteLevel') return { ...preTokenizer, add_prefix_space: add };
  if (!Array.isArray(preTokenizer.pretokenizers)) return preTokenizer;
  return { ...preTokenizer, pretokenizers: preTokenizer.pretokenizers.map((part) => withPrefixSpace(part, add)) };
}

/**
 * tokenizer.json with what its configuration adds to it.
 * @param config tokenizer_config.json @param map special_tokens_map.json
 */
export function withConfiguredTokens(tokenizer: TokenizerJson, config: Config, map: Config): TokenizerJson {
  const vocabulary = vocabularyOf(tokenizer);
  // what is no token among them is told when the whole file is checked
  const added = [...(Array.isArray(tokenizer.added_tokens) ? tokenizer.added_tokens : [])];
  const placeOf = (content: unknown): number =>
    added.findIndex((token) => isObject(token) && token.content === content);
  const add = (token: Omit<AddedTokenJson, 'id'>, flagsToo: boolean): void => {
    const at = placeOf(token.content);
    if (at >= 0) {
      if (flagsToo) added[at] = { ...token, id: added[at]!.id } as AddedTokenJson;
      return;
    }
    const last = added.reduce((most, each) => (isObject(each) ? Math.max(most, Number(each.id)) : most), -1);
    const id = vocabulary.idOf(token.content as string) ?? (last >= vocabulary.size ? last + 1 : vocabulary.size);
    added.push({ ...token, id } as AddedTokenJson);
  };
  const { decoder, named, extra } = configuredTokens(config, map);
  const names = new Set(named.map(contentOf));
  for (const value of decoder) {
    // what says nothing of it is no special token here
    const token = tokenOf(isObject(value) ? { special: false, ...value } : value);
    if (!token) continue;
    const known = added[placeOf(token.content)];
    // one that tokenizer.json has just so is left alone; of the others, those with a name are special
    if (known && FLAGS.every((flag) => (known[flag] ?? false) === token[flag])) continue;
    add(names.has(token.content as string) ? { ...token, special: true } : token, true);
  }
  for (const value of [...named, ...extra]) {
    const token = tokenOf(value);
    if (token) add({ ...token, special: true }, false);
  }
  const prefix = config.add_prefix_space;
  const takes = typeof prefix === 'boolean' && TAKES_PREFIX_SPACE.test(String(config.tokenizer_class));
  return {
    ...tokenizer,
    ...(added.length > 0 && { added_tokens: added }),
    ...(takes && { pre_tokenizer: withPrefixSpace(tokenizer.pre_tokenizer, prefix) }),
  };
}
