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

/** A special token: its text and its id. */
export interface SpecialToken {
  content: string;
  id: number;
}

/** The special tokens that a tokenizer has, by name. */
export type SpecialTokens = Partial<Record<(typeof SPECIAL_TOKEN_NAMES)[number], SpecialToken>>;

/**
 * The named special tokens. tokenizer_config.json wins over special_tokens_map.json; each entry is a text or an object
 * with `content`. A token without an id in the vocabulary is left out.
 */
export function readSpecialTokens(
  files: Pick<TokenizerFiles, 'config' | 'specialTokensMap'>,
  idOf: (token: string) => number | undefined,
): SpecialTokens {
  const tokens: SpecialTokens = {};
  for (const name of SPECIAL_TOKEN_NAMES) {
    const content = contentOf(files.config[name]) ?? contentOf(files.specialTokensMap[name]);
    const id = content === undefined ? undefined : idOf(content);
    if (content !== undefined && id !== undefined) tokens[name] = { content, id };
  }
  return tokens;
}

function contentOf(value: unknown): string | undefined {
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
