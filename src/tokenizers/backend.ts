import type * as NativeTokenizers from 'tokenizers';
import { TokenizerError } from '../base/errors.js';

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
  if (which === 'javascript') return createJavaScriptBackend(json, config, where);
  let native: typeof NativeTokenizers | undefined;
  try {
    native = await import('tokenizers');
  } catch (cause) {
    if (which === 'native') {
      throw new TokenizerError(
        `The native tokenizer does not load on this platform (${process.platform} ${process.arch}): ` +
          `${(cause as Error).message}. Leave the backend option out to use the one in JavaScript.`,
        { platform: process.platform, arch: process.arch },
        { cause },
      );
    }
  }
  return native ? createNativeBackend(native, json, where) : createJavaScriptBackend(json, config, where);
}

function createNativeBackend(native: typeof NativeTokenizers, json: TokenizerJson, where: string): TokenizerBackend {
  const tokenizer = build(where, () => native.Tokenizer.fromString(JSON.stringify(json)));
  // Padding and truncation stored in the file would act on every call; ours are options of the call.
  tokenizer.disablePadding();
  tokenizer.disableTruncation();
  let vocab: Map<string, number> | undefined;
  return {
    name: 'native',
    encode: async (text, addSpecialTokens) => (await tokenizer.encode(text, null, { addSpecialTokens })).getIds(),
    decode: async (ids, skipSpecialTokens) => tokenizer.decode([...ids], skipSpecialTokens),
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
    readonly decoder: unknown;
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
  const { Tokenizer } = (await import('@huggingface/tokenizers')) as unknown as JavaScriptTokenizers;
  // Spaces are cleaned up by our own Tokenizer, so that both backends do the same.
  const tokenizer = build(where, () => new Tokenizer(json, { ...config, clean_up_tokenization_spaces: false }));
  keepByteOrderMarks(tokenizer.decoder);
  return {
    name: 'javascript',
    encode: async (text, addSpecialTokens) => tokenizer.encode(text, { add_special_tokens: addSpecialTokens }).ids,
    // It throws on an empty list, where the native one gives an empty text.
    decode: async (ids, skipSpecialTokens) =>
      ids.length === 0 ? '' : tokenizer.decode([...ids], { skip_special_tokens: skipSpecialTokens }),
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

function build<T>(where: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw new TokenizerError(
      `${where} is not a tokenizer that can be used: ${(cause as Error).message}. ` +
        `Expected the tokenizer.json that the tokenizers library writes.`,
      { file: where },
      { cause },
    );
  }
}
