/**
 * Text to ids and back: our Tokenizer over the `tokenizers` package (or `@huggingface/tokenizers`, in pure JavaScript,
 * where the native one does not load), decoding of streams, and chat templates.
 */
export { Tokenizer } from './tokenizer.js';
export { BatchEncoding } from './encoding.js';
export type { EncodedRows } from './encoding.js';
export type { AnyIds, RowOfIds, RowsOfIds } from './ids.js';
export type {
  ApplyChatOptions,
  BatchEncodeOptions,
  DecodeOptions,
  EncodeOptions,
  PadOptions,
  TokenizerCallOptions,
  TokenizerOptions,
} from './options.js';
export { TOKENIZER_OTHERS, TOKENIZER_RULES } from './options.js';
export type { TokenizerBackendName } from './backend.js';
export { IncrementalDecoder } from './incremental.js';
export type { RowDecoder } from './incremental.js';
export type { ChatMessage, ChatTemplateOptions, TemplateMessage } from './chat_template.js';
export type { SpecialToken, SpecialTokens } from './special_tokens.js';
export { readTokenizerFiles } from './files.js';
export type { TokenizerFiles } from './files.js';
