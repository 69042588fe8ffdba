import type { TokenizerFiles } from './files.js';

/** Names of the special tokens that tokenizer_config.json may give. */
export const SPECIAL_TOKEN_NAMES = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
] as const;

export type SpecialTokenName = (typeof SPECIAL_TOKEN_NAMES)[number];

/** A special token: its text and its id. */
export interface SpecialToken {
  content: string;
  id: number;
}

/** The special tokens that a tokenizer has, by name. */
export type SpecialTokens = Partial<Record<SpecialTokenName, SpecialToken>>;

/** What transformers' class for GPT-NeoX has where the configuration is silent. */
const GPT_NEOX = {
  bos_token: '<|endoftext|>',
  eos_token: '<|endoftext|>',
  unk_token: '<|endoftext|>',
  pad_token: '<|padding|>',
};

/**
 * The named special tokens as the files give them, a text or an object with `content` each. What stands by name in
 * extra_special_tokens (transformers 5) wins over tokenizer_config.json, and that over special_tokens_map.json.
 */
export function namedTokens({
  config,
  special_tokens_map: specialTokensMap,
}: Pick<TokenizerFiles, 'config' | 'special_tokens_map'>): Readonly<Record<string, unknown>> {
  const defaults = /^GPTNeoXTokenizer(?:Fast)?$/.test(String(config['tokenizer_class'])) ? GPT_NEOX : {};
  const extra = config['extra_special_tokens'];
  const byName = typeof extra === 'object' && extra !== null && !Array.isArray(extra) ? extra : {};
  return { ...defaults, ...specialTokensMap, ...config, ...byName };
}

/** The named special tokens with their ids. A token without an id in the vocabulary is left out. */
export function readSpecialTokens(
  files: Pick<TokenizerFiles, 'config' | 'special_tokens_map'>,
  idOf: (token: string) => number | undefined,
): SpecialTokens {
  const tokens: SpecialTokens = {};
  const named = namedTokens(files);
  for (const name of SPECIAL_TOKEN_NAMES) {
    const content = contentOf(named[name]);
    const id = content === undefined ? undefined : idOf(content);
    if (content !== undefined && id !== undefined) tokens[name] = { content, id };
  }
  return tokens;
}

/** The text of a token that is given as a text or as an object with `content`. */
export function contentOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : undefined;
}

/** Takes out spaces before punctuation and English contractions (PreTrainedTokenizerBase.clean_up_tokenization). */
export function cleanUpSpaces(text: string): string {
  return text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
