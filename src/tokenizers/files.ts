import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { TokenizerError } from '../base/errors.js';
import { isThere, readBytes, saidOfAbsent } from '../base/regular_file.js';
import { parseJson, readTextFileIfThere } from '../base/text_files.js';
import { withConfiguredTokens } from './added_tokens.js';
import type { TokenizerJson } from './backend.js';
import type { TokenizerOptions } from './options.js';
import { SPECIAL_TOKEN_NAMES } from './special_tokens.js';
import { convertSentencePiece } from './sentencepiece.js';
import type { ConvertedTokenizer } from './sentencepiece.js';
import { quote } from '../base/quote.js';

/** The files of a tokenizer folder, parsed. */
export interface TokenizerFiles {
  /** Folder or name, for messages. */
  source: string;
  tokenizer: TokenizerJson;
  /** tokenizer_config.json; empty where there is none. */
  config: Record<string, unknown>;
  /** special_tokens_map.json; empty where there is none. */
  special_tokens_map: Record<string, unknown>;
  /** Chat templates by name; the usual one is called 'default'. */
  chat_templates: Record<string, string>;
}

/**
 * Reads a tokenizer folder in the Hugging Face layout: tokenizer.json (or a SentencePiece model where there is none:
 * tokenizer.model, tokenizer.model.v3), tokenizer_config.json,
 * special_tokens_map.json, chat_template.jinja and additional_chat_templates/NAME.jinja (which win over the templates
 * in tokenizer_config.json, as in transformers).
 *
 * @param options those that stand for entries of tokenizer_config.json
 * @throws TokenizerError when tokenizer.json is missing or a file is not JSON
 */
export async function readTokenizerFiles(dir: string, options: ConfigOptions = {}): Promise<TokenizerFiles> {
  const file = path.join(dir, 'tokenizer.json');
  const converted = (await isThere(file)) ? undefined : await readSentencePiece(dir);
  const tokenizer = converted?.tokenizer ?? (await readJson(file));
  if (tokenizer === undefined) {
    throw new TokenizerError(
      `There is no tokenizer.json in ${dir}, nor a tokenizer.model. Expected a folder with the tokenizer of the model; state-spaces checkpoints ` +
        `have none of their own and use that of EleutherAI/gpt-neox-20b: copy its tokenizer.json there, or name its folder.${await saidOfAbsent(file)}`,
      { file },
    );
  }
  if (converted && options.legacy === false) {
    throw new TokenizerError(
      `legacy is false, and ${dir} has a SentencePiece model and no tokenizer.json: such a model is read as with legacy: true. Get the ` +
        `repository's tokenizer.json, which says how its texts are read, or leave the option out.`,
      { option: 'legacy', got: false },
    );
  }
  const stored = (await readJson(path.join(dir, 'tokenizer_config.json'))) ?? {};
  const config = { ...stored, ...configured(options) };
  if (config.split_special_tokens === true) {
    throw new TokenizerError(
      `tokenizer_config.json in ${dir} says split_special_tokens: true, and special tokens in a text are always read as such here. Remove ` +
        `the entry if that is what you want.`,
      { file: path.join(dir, 'tokenizer_config.json') },
    );
  }
  const specialTokensMap =
    (await readJson(path.join(dir, 'special_tokens_map.json'))) ?? converted?.specialTokens ?? {};
  return {
    source: dir,
    tokenizer: withConfiguredTokens(tokenizer, config, specialTokensMap),
    config,
    special_tokens_map: specialTokensMap,
    chat_templates: {
      ...(converted?.chatTemplate === undefined ? {} : { default: converted.chatTemplate }),
      ...templatesOf(config),
      ...(await readTemplates(dir)),
    },
  };
}

/** Options that stand for entries of tokenizer_config.json. */
type ConfigOptions = Pick<
  TokenizerOptions,
  (typeof CONFIG_OPTIONS)[number] | (typeof SPECIAL_TOKEN_NAMES)[number] | 'legacy'
>;

const CONFIG_OPTIONS = ['add_prefix_space', 'clean_up_tokenization_spaces'] as const;

/** The entries that options give; null takes one away. */
function configured(options: ConfigOptions): Record<string, unknown> {
  const names = [...CONFIG_OPTIONS, ...SPECIAL_TOKEN_NAMES];
  return Object.fromEntries(names.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]])));
}

/** Names of SentencePiece models: Llama's and Mistral's. */
const SENTENCEPIECE_FILES = ['tokenizer.model', 'tokenizer.model.v3', 'tokenizer.model.v2', 'tokenizer.model.v1'];

async function readSentencePiece(dir: string): Promise<ConvertedTokenizer | undefined> {
  for (const name of SENTENCEPIECE_FILES) {
    const file = path.join(dir, name);
    if (await isThere(file)) return convertSentencePiece(await readBytes(file, TokenizerError), file);
  }
  return undefined;
}

async function readJson(file: string): Promise<Record<string, unknown> | undefined> {
  const text = await readTextFileIfThere(file, TokenizerError);
  if (text === null) return undefined;
  const value = parseJson(text, file, TokenizerError);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TokenizerError(`${file} holds ${quote(value, 40)}; expected an object.`, { file });
  }
  return value as Record<string, unknown>;
}

async function readTemplates(dir: string): Promise<Record<string, string>> {
  const templates: Record<string, string> = {};
  const main = await readTextFileIfThere(path.join(dir, 'chat_template.jinja'), TokenizerError);
  if (main !== null) templates.default = main;
  const folder = path.join(dir, 'additional_chat_templates');
  const names = await readdir(folder).catch(() => []);
  for (const name of names.filter((n) => n.endsWith('.jinja')).sort()) {
    const text = await readTextFileIfThere(path.join(folder, name), TokenizerError);
    if (text !== null) templates[name.slice(0, -'.jinja'.length)] = text;
  }
  return templates;
}

/** chat_template in tokenizer_config.json is a text, or a list of {name, template}. */
function templatesOf(config: Record<string, unknown>): Record<string, string> {
  const value = config.chat_template;
  if (typeof value === 'string') return { default: value };
  const templates: Record<string, string> = {};
  if (Array.isArray(value)) {
    for (const entry of value as { name?: unknown; template?: unknown }[]) {
      if (typeof entry?.name === 'string' && typeof entry.template === 'string') templates[entry.name] = entry.template;
    }
  }
  return templates;
}
