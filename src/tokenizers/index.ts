/**
 * Text to ids and back: our Tokenizer over the `tokenizers` package (or `@huggingface/tokenizers`, in pure JavaScript,
 * where the native one does not load), decoding of streams, and chat templates.
 */
export { Tokenizer } from './tokenizer.js';
export type { BatchEncodeOptions, BatchEncoding, DecodeOptions, EncodeOptions, TokenizerOptions } from './tokenizer.js';
export type { TokenizerBackendName } from './backend.js';
export { IncrementalDecoder } from './incremental.js';
export type { ChatMessage, ChatTemplateOptions, TemplateMessage } from './chat_template.js';
export type { SpecialToken, SpecialTokens } from './special_tokens.js';
export { readTokenizerFiles } from './files.js';
export type { TokenizerFiles } from './files.js';
