import type * as NativeTokenizers from 'tokenizers';
import { Mamba2Error, TokenizerError } from '../base/errors.js';
import { fromBase64 } from '../base/bytes.js';
import { plain } from '../base/quote.js';
import { charsMapNormalizer } from './charsmap_normalizer.js';
import { mergeSymbols } from './bpe_merges.js';
import { checkForJavaScript, checkTokenizerJson, EXPECTED, UNUSABLE } from './checks/index.js';
import { holds } from './checks/probe.js';
import { nativePackage } from './native_package.js';

/** A parsed tokenizer.json. Only what this package itself looks at is named; the rest is for the backends. */
export interface TokenizerJson {
  added_tokens?: AddedTokenJson[];
  model?: { type?: string; vocab?: unknown };
  [key: string]: unknown;
}

/** One entry of added_tokens in tokenizer.json. */
export interface AddedTokenJson {
  id: number;
  content: string;
  special?: boolean;
  [key: string]: unknown;
}

/** Which implementation turns text into ids: the native package or the one in pure JavaScript. */
export type TokenizerBackendName = 'native' | 'javascript';

/**
 * What we ask of a tokenizer implementation. Both methods are promises because the native package works on threads of
 * its own; the pure JavaScript one fulfils them at once.
 */
export interface TokenizerBackend {
  readonly name: TokenizerBackendName;
  encode(text: string, addSpecialTokens: boolean): Promise<number[]>;
  decode(ids: readonly number[], skipSpecialTokens: boolean): Promise<string>;
  /** Undefined where the tokenizer has no such token. */
  tokenToId(token: string): number | undefined;
  idToToken(id: number): string | undefined;
  /** Token to id, added tokens included. */
  vocab(): ReadonlyMap<string, number>;
}

/**
 * Builds the backend for a tokenizer.
 *
 * @param json parsed tokenizer.json
 * @param config parsed tokenizer_config.json
 * @param where the file, for messages
 * @param which 'native', 'javascript', or undefined: the native one where it loads, else the one in JavaScript
 * @throws TokenizerError when the backend refuses the tokenizer, or cannot be loaded though it was asked for by name
 */
export async function createBackend(
  json: TokenizerJson,
  config: Record<string, unknown>,
  where: string,
  which?: TokenizerBackendName,
): Promise<TokenizerBackend> {
  const tame = checkTokenizerJson(json, where);
  if (which === 'javascript') return createJavaScriptBackend(json, config, where);
  let native: typeof NativeTokenizers | null = null;
  try {
    native = nativePackage();
  } catch (cause) {
    if (which === 'native') {
      throw new TokenizerError(
        `The native tokenizer does not load on this platform (${process.platform} ${process.arch}): ` +
          `${(cause as Error).message}. Leave the backend option out to use the one in JavaScript.`,
        { platform: process.platform, arch: process.arch },
        { cause },
      );
    }
    tellOnce(cause);
  }
  if (!native) return createJavaScriptBackend(json, config, where);
  // Padding and truncation stored in the file would act on every call; ours are options of the call.
  const text = JSON.stringify({ ...json, padding: null, truncation: null });
  // What cannot be tried is not trusted, unless it was asked for by name.
  if (!tame && !(await holds(text, where)) && which !== 'native') return createJavaScriptBackend(json, config, where);
  return createNativeBackend(native, text, where);
}

let told = false;

/** Texts of most tokenizers are the same; some take longer. */
function tellOnce(cause: unknown): void {
  if (told) return;
  told = true;
  const why = (cause as Error).message.split('\n')[0]!;
  process.emitWarning(
    `The package tokenizers does not load (${why}): the tokenizer in JavaScript is used, which is slower. In a bundle leave packages out (esbuild --packages=external) to have it.`,
    { code: 'MAMBA2_TOKENIZERS' },
  );
}

function createNativeBackend(native: typeof NativeTokenizers, text: string, where: string): TokenizerBackend {
  const tokenizer = build(where, () => native.Tokenizer.fromString(text));
  let vocab: Map<string, number> | undefined;
  return {
    name: 'native',
    encode: (text, addSpecialTokens) =>
      work(where, async () => (await tokenizer.encode(text, null, { addSpecialTokens })).getIds()),
    decode: (ids, skipSpecialTokens) => work(where, () => tokenizer.decode([...ids], skipSpecialTokens)),
    tokenToId: (token) => tokenizer.tokenToId(token) ?? undefined,
    idToToken: (id) => tokenizer.idToToken(id) ?? undefined,
    vocab: () => (vocab ??= new Map(Object.entries(tokenizer.getVocab(true)))),
  };
}

/** What we use of @huggingface/tokenizers: its own types hang together with the resolution of bundlers alone. */
interface JavaScriptTokenizers {
  Tokenizer: new (
    json: TokenizerJson,
    config: Record<string, unknown>,
  ) => {
    readonly normalizer: unknown;
    readonly decoder: unknown;
    readonly model: unknown;
    encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
    decode(ids: number[], options: { skip_special_tokens: boolean }): string;
    token_to_id(token: string): number | undefined;
    id_to_token(id: number): string | undefined;
    get_vocab(with_added_tokens: boolean): Map<string, number>;
  };
}

async function createJavaScriptBackend(
  json: TokenizerJson,
  config: Record<string, unknown>,
  where: string,
): Promise<TokenizerBackend> {
  checkForJavaScript(json, where);
  const { Tokenizer } = (await import('@huggingface/tokenizers')) as unknown as JavaScriptTokenizers;
  // Spaces are cleaned up by our own Tokenizer, and what is special stands in added_tokens, so that both backends do the same.
  const own = { ...config, clean_up_tokenization_spaces: false, additional_special_tokens: [] };
  const tokenizer = build(where, () => new Tokenizer(json, own));
  keepByteOrderMarks(tokenizer.decoder);
  mergeQuickly(tokenizer.model);
  normalizeAlike(tokenizer.normalizer);
  return {
    name: 'javascript',
    encode: (text, addSpecialTokens) =>
      work(where, async () => tokenizer.encode(text, { add_special_tokens: addSpecialTokens }).ids),
    // It throws on an empty list, where the native one gives an empty text.
    decode: (ids, skipSpecialTokens) =>
      work(where, async () =>
        ids.length === 0 ? '' : tokenizer.decode([...ids], { skip_special_tokens: skipSpecialTokens }),
      ),
    tokenToId: (token) => tokenizer.token_to_id(token),
    idToToken: (id) => tokenizer.id_to_token(id),
    vocab: () => tokenizer.get_vocab(true),
  };
}

/** The JavaScript package's byte-fallback decoder drops U+FEFF at the start of a run of bytes; it is a character of the text. */
function keepByteOrderMarks(decoder: unknown): void {
  const { text_decoder, decoders } = (decoder ?? {}) as { text_decoder?: TextDecoder; decoders?: unknown[] };
  if (text_decoder) {
    const keeping = new TextDecoder('utf-8', { fatal: text_decoder.fatal, ignoreBOM: true });
    Object.assign(decoder as object, { text_decoder: keeping });
  }
  decoders?.forEach(keepByteOrderMarks);
}

interface JavaScriptNormalizer {
  config?: { type?: string; precompiled_charsmap?: string };
  normalizers?: (JavaScriptNormalizer | null)[];
  normalize?: (text: string) => string;
}

/** Has the JavaScript package's normalizers do what the native ones do: follow a charsmap, and put nothing before an empty text. */
function normalizeAlike(normalizer: unknown): void {
  const own = normalizer as JavaScriptNormalizer | null | undefined;
  const { type, precompiled_charsmap } = own?.config ?? {};
  if (own && type === 'Precompiled') own.normalize = charsMapNormalizer(fromBase64(precompiled_charsmap!));
  const normalize = own?.normalize;
  if (own && normalize && type === 'Prepend') own.normalize = (text) => (text === '' ? '' : normalize.call(own, text));
  own?.normalizers?.forEach(normalizeAlike);
}

/** Puts our merges in the place of those of the JavaScript package's BPE model. */
function mergeQuickly(model: unknown): void {
  const bpe = model as {
    bpe?: (word: string) => string[];
    bpe_ranks?: Map<string, number>;
    end_of_word_suffix?: string;
  };
  const { bpe: own, bpe_ranks: ranks } = bpe;
  if (typeof own !== 'function' || !(ranks instanceof Map)) return;
  bpe.bpe = (word) => {
    // it remembers short words, and is as quick there
    if (word.length < 256) return own.call(model, word);
    const symbols = Array.from(word);
    if (bpe.end_of_word_suffix) symbols[symbols.length - 1] += bpe.end_of_word_suffix;
    return mergeSymbols(symbols, (left, right) => ranks.get(JSON.stringify([left, right])));
  };
}

function build<T>(where: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw unusable(where, cause);
  }
}

/** What a tokenizer does with a text or with ids: it may find only then that its file asks for what cannot be done. */
async function work<T>(where: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    if (cause instanceof Mamba2Error) throw cause;
    const why = plain((cause as Error).message, 300);
    throw new TokenizerError(
      `The tokenizer in ${where} fails on this text or these ids: ${why}. Its files may ask for what it does not have, or the text be too long.`,
      { file: where },
      { cause },
    );
  }
}

function unusable(where: string, cause: unknown): Mamba2Error {
  if (cause instanceof Mamba2Error) return cause;
  const why = plain((cause as Error).message, 300);
  return new TokenizerError(`${where} ${UNUSABLE}: ${why}. ${EXPECTED}`, { file: where }, { cause });
}
