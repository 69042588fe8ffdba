import { access, readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { TokenizerError } from '../base/errors.js';
import { parseJson, readTextFileIfThere } from '../base/text_files.js';
import { withConfiguredTokens } from './added_tokens.js';
import type { TokenizerJson } from './backend.js';
import { convertSentencePiece } from './sentencepiece.js';
import type { ConvertedTokenizer } from './sentencepiece.js';

/** The files of a tokenizer folder, parsed. */
export interface TokenizerFiles {
  /** Folder or name, for messages. */
  source: string;
  tokenizer: TokenizerJson;
  /** tokenizer_config.json; empty where there is none. */
  config: Record<string, unknown>;
  /** special_tokens_map.json; empty where there is none. */
  specialTokensMap: Record<string, unknown>;
  /** Chat templates by name; the usual one is called 'default'. */
  chatTemplates: Record<string, string>;
}

/**
 * Reads a tokenizer folder in the Hugging Face layout: tokenizer.json (or a SentencePiece model where there is none:
 * tokenizer.model, tokenizer.model.v3), tokenizer_config.json,
 * special_tokens_map.json, chat_template.jinja and additional_chat_templates/NAME.jinja (which win over the templates
 * in tokenizer_config.json, as in transformers).
 *
 * @throws TokenizerError when tokenizer.json is missing or a file is not JSON
 */
export async function readTokenizerFiles(dir: string): Promise<TokenizerFiles> {
  const file = path.join(dir, 'tokenizer.json');
  const converted = (await exists(file)) ? undefined : await readSentencePiece(dir);
  const tokenizer = converted?.tokenizer ?? (await readJson(file));
  if (tokenizer === undefined) {
    throw new TokenizerError(
      `There is no tokenizer.json in ${dir}, nor a tokenizer.model. Expected a folder with the tokenizer of the model; state-spaces checkpoints ` +
        `have none of their own and use that of EleutherAI/gpt-neox-20b: copy its tokenizer.json there, or name its folder.`,
      { file },
    );
  }
  const config = (await readJson(path.join(dir, 'tokenizer_config.json'))) ?? {};
  const specialTokensMap =
    (await readJson(path.join(dir, 'special_tokens_map.json'))) ?? converted?.specialTokens ?? {};
  return {
    source: dir,
    tokenizer: withConfiguredTokens(tokenizer, config, specialTokensMap),
    config,
    specialTokensMap,
    chatTemplates: {
      ...(converted?.chatTemplate === undefined ? {} : { default: converted.chatTemplate }),
      ...templatesOf(config),
      ...(await readTemplates(dir)),
    },
  };
}

/** Names of SentencePiece models: Llama's and Mistral's. */
const SENTENCEPIECE_FILES = ['tokenizer.model', 'tokenizer.model.v3', 'tokenizer.model.v2', 'tokenizer.model.v1'];

async function readSentencePiece(dir: string): Promise<ConvertedTokenizer | undefined> {
  for (const name of SENTENCEPIECE_FILES) {
    const file = path.join(dir, name);
    if (await exists(file)) return convertSentencePiece(await readFile(file), file);
  }
  return undefined;
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

async function readJson(file: string): Promise<Record<string, unknown> | undefined> {
  const text = await readTextFileIfThere(file, TokenizerError);
  if (text === null) return undefined;
  const value = parseJson(text, file, TokenizerError);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TokenizerError(`${file} holds ${JSON.stringify(value)?.slice(0, 40)}; expected an object.`, { file });
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
