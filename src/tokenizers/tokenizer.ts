import type * as tf from '@tensorflow/tfjs';
import { TokenizerError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import { createBackend } from './backend.js';
import type { TokenizerBackend, TokenizerBackendName } from './backend.js';
import { renderChat } from './chat_template.js';
import type { TemplateMessage } from './chat_template.js';
import { BatchEncoding } from './encoding.js';
import { readTokenizerFiles } from './files.js';
import type { TokenizerFiles } from './files.js';
import { readIds, type AnyIds, type RowOfIds, type RowsOfIds } from './ids.js';
import * as tables from './options.js';
import type { ApplyChatOptions, BatchEncodeOptions, DecodeOptions, EncodeOptions } from './options.js';
import type { PadOptions, TokenizerCallOptions, TokenizerOptions } from './options.js';
import { cutIds, longest, padRows, type Side } from './padding.js';
import { SpecialTokenProperties } from './special_token_properties.js';
import { cleanUpSpaces, readSpecialTokens } from './special_tokens.js';
import type { SpecialTokens } from './special_tokens.js';

/** What a call of a tokenizer takes. */
type Call = [text: string | readonly string[], options?: TokenizerCallOptions];
/** What a call gives: lists of one text or of several, or tensors. */
type Called = Promise<BatchEncoding<number[]> | BatchEncoding | BatchEncoding<tf.Tensor2D>>;

/**
 * Text to ids and back. Reads tokenizers in the Hugging Face layout. A tokenizer is called as in transformers, for what
 * `generate()` and `forward()` take whole; its methods give the parts.
 *
 * @example
 * const tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
 * const { input_ids, attention_mask } = await tokenizer(['Once upon', 'It is a truth'], { padding: true });
 * const text = await tokenizer.decode(input_ids[1]!, { skip_special_tokens: true });
 */
// A class can say that it is called in an interface of its name alone; Callable makes it true.
// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export interface Tokenizer {
  /**
   * Ids and mask of a text or of several.
   *
   * @throws TokenizerError for what is no text, a wrong option, rows that are to be tensors and of different lengths, and as encode()
   */
  (
    text: string | readonly string[],
    options: TokenizerCallOptions & { return_tensors: 'tf' },
  ): Promise<BatchEncoding<tf.Tensor2D>>;
  (text: string, options?: TokenizerCallOptions & { return_tensors?: null }): Promise<BatchEncoding<number[]>>;
  (texts: readonly string[], options?: TokenizerCallOptions & { return_tensors?: null }): Promise<BatchEncoding>;
  (...call: Call): Called;
}

// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export class Tokenizer extends SpecialTokenProperties<Call, Called> {
  private sides: { padding: Side; truncation: Side };
  private readonly templates: Record<string, string>;
  private limit: number | null;

  private constructor(
    private readonly backend: TokenizerBackend,
    private readonly files: TokenizerFiles,
    special_tokens: SpecialTokens,
    /** One more than the largest id: ids from here on are padding rows of the model's embedding. */
    readonly vocab_size: number,
    options: TokenizerOptions,
  ) {
    super(special_tokens);
    const { config } = files;
    this.sides = {
      padding: sideOf(options.padding_side ?? config.padding_side ?? 'left', 'padding_side'),
      truncation: sideOf(options.truncation_side ?? config.truncation_side ?? 'right', 'truncation_side'),
    };
    const { model_max_length: stored } = config;
    // transformers writes 1e30 for "no limit".
    const known = typeof stored === 'number' && Number.isInteger(stored) && stored > 0 && stored < 1e9 ? stored : null;
    this.limit = options.model_max_length === undefined ? known : options.model_max_length;
    const { chat_template } = options;
    this.templates = { ...files.chat_templates, ...(chat_template !== undefined && { default: chat_template }) };
  }

  /**
   * Reads the tokenizer of a model folder.
   *
   * @throws TokenizerError when there is none, a file is malformed, or for a wrong option
   */
  static async from_pretrained(dir: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
    tables.TOKENIZER_TABLE.check(options);
    return Tokenizer.from_files(await readTokenizerFiles(dir, options), options);
  }

  /** Makes a tokenizer from files that are parsed already. */
  static async from_files(files: TokenizerFiles, options: TokenizerOptions = {}): Promise<Tokenizer> {
    tables.TOKENIZER_TABLE.check(options);
    const backend = await createBackend(files.tokenizer, files.config, files.source, options.backend);
    const special = readSpecialTokens(files, (token) => backend.tokenToId(token));
    let size = 0;
    for (const id of backend.vocab().values()) size = Math.max(size, id + 1);
    return new Tokenizer(backend, files, special, size, options);
  }

  /** Which implementation is in use. */
  get backend_name(): TokenizerBackendName {
    return this.backend.name;
  }
  /** Chat templates by name. */
  get chat_templates(): Readonly<Record<string, string>> {
    return this.templates;
  }
  /** The chat template that is taken where none is named, null where there is none. */
  get chat_template(): string | null {
    return this.templates.default ?? null;
  }
  set chat_template(template: string | null) {
    if (template !== null && typeof template !== 'string') {
      throw new TokenizerError(`chat_template cannot be ${quote(template)}; expected a text, or null.`, {
        got: template,
      });
    }
    if (template === null) delete this.templates.default;
    else this.templates.default = template;
  }
  /** Which side batches are padded on. A state-space model reads either exactly; 'left' is what Hugging Face uses. */
  get padding_side(): Side {
    return this.sides.padding;
  }
  set padding_side(side: Side) {
    this.sides.padding = sideOf(side, 'padding_side');
  }
  /** Which end a text is cut at. */
  get truncation_side(): Side {
    return this.sides.truncation;
  }
  set truncation_side(side: Side) {
    this.sides.truncation = sideOf(side, 'truncation_side');
  }
  /** Ids that truncation leaves where no max_length is given; null for no limit. */
  get model_max_length(): number | null {
    return this.limit;
  }
  set model_max_length(length: number | null) {
    tables.TOKENIZER_TABLE.checkValue('model_max_length', length);
    this.limit = length;
  }

  /** The id of a token, null where there is none. */
  token_to_id(token: string): number | null {
    return this.backend.tokenToId(token) ?? null;
  }
  /** The token of an id (in the tokenizer's own spelling), null where there is none. */
  id_to_token(id: number): string | null {
    // the native one takes 32 bits and wraps around
    return id >= 0 && id < 2 ** 32 ? (this.backend.idToToken(id) ?? null) : null;
  }
  /** Token to id, added tokens included. */
  get_vocab(): ReadonlyMap<string, number> {
    return this.backend.vocab();
  }

  protected async call_with([text, options]: Call): Called {
    tables.TOKENIZE_TABLE.check(options);
    const { return_tensors, padding = false, ...others } = options ?? {};
    const one = typeof text === 'string';
    if (!one) checkTexts(text, 'tokenizer()');
    const { input_ids, attention_mask } = await this.encodeAll(one ? [text] : text, { ...others, padding });
    if (return_tensors === 'tf') return tensorsOf(input_ids, attention_mask);
    return one ? new BatchEncoding(input_ids[0]!, attention_mask[0]!) : new BatchEncoding(input_ids, attention_mask);
  }

  /**
   * The ids of a text.
   *
   * @throws TokenizerError for what is not a text, half of a surrogate pair (it has no UTF-8 form), or a max_length with
   *   no room for the special tokens
   */
  async encode(text: string, options: EncodeOptions = {}): Promise<number[]> {
    tables.ENCODE_TABLE.check(options);
    if (typeof text !== 'string') {
      throw new TokenizerError(`encode() got ${quote(text)}; expected a text.`, { got: text });
    }
    return this.encodeOne(text, options);
  }

  /**
   * The ids of several texts, padded to one length by default.
   *
   * @throws TokenizerError as encode, and when padding is needed but the tokenizer has no pad or eos token
   */
  async batch_encode(texts: readonly string[], options: BatchEncodeOptions = {}): Promise<BatchEncoding> {
    tables.BATCH_ENCODE_TABLE.check(options);
    checkTexts(texts, 'batch_encode()');
    return this.encodeAll(texts, options);
  }

  /** Pads rows of ids to one length, with an attention mask. Options and errors as batch_encode. */
  pad(rows: readonly (readonly number[])[], options: PadOptions = {}): BatchEncoding {
    tables.PAD_TABLE.check(options);
    if (!Array.isArray(rows) || !rows.every(Array.isArray)) {
      throw new TokenizerError(`pad() got ${quote(rows)}; expected rows of ids.`, { got: rows });
    }
    return this.padTo(rows, options);
  }

  /**
   * The text of a row of ids, or the texts of several rows: of lists, typed arrays, tensors, what a call of the tokenizer gives
   * and what generate() returns. Bytes that are no UTF-8 give U+FFFD; ids that the tokenizer does not have give nothing.
   *
   * @throws TokenizerError for what holds no ids
   */
  decode(ids: RowOfIds | { readonly input_ids: number[] }, options?: DecodeOptions): Promise<string>;
  decode(rows: RowsOfIds, options?: DecodeOptions): Promise<string[]>;
  decode(ids: AnyIds, options?: DecodeOptions): Promise<string | string[]>;
  async decode(ids: AnyIds, options: DecodeOptions = {}): Promise<string | string[]> {
    tables.DECODE_TABLE.check(options);
    const { rows, single } = await readIds(ids, 'decode()');
    return single ? this.decodeRow(rows[0]!, options) : this.decodeRows(rows, options);
  }

  /** The texts of rows of ids, in any form that decode() takes; of one row, a list of one text. */
  async batch_decode(rows: AnyIds, options: DecodeOptions = {}): Promise<string[]> {
    tables.DECODE_TABLE.check(options);
    const read = await readIds(rows, 'batch_decode()');
    // an empty list holds no rows; a row of no ids would be [[]]
    return read.single && read.rows[0]!.length === 0 ? [] : this.decodeRows(read.rows, options);
  }

  /**
   * A chat as the model expects it: ids, or the text with `tokenize: false`. The ids get no further special tokens;
   * the template writes its own.
   *
   * @throws TokenizerError when the tokenizer has no chat template, or the template refuses the chat
   */
  apply_chat_template(
    messages: readonly TemplateMessage[],
    options: ApplyChatOptions & { tokenize: false },
  ): Promise<string>;
  apply_chat_template(
    messages: readonly TemplateMessage[],
    options?: ApplyChatOptions & { tokenize?: true; return_dict?: false; return_tensors?: null },
  ): Promise<number[]>;
  apply_chat_template(
    messages: readonly TemplateMessage[],
    options: ApplyChatOptions & { tokenize?: true; return_dict: true; return_tensors?: null },
  ): Promise<BatchEncoding<number[]>>;
  apply_chat_template(
    messages: readonly TemplateMessage[],
    options: ApplyChatOptions & { tokenize?: true; return_dict: true; return_tensors: 'tf' },
  ): Promise<BatchEncoding<tf.Tensor2D>>;
  apply_chat_template(
    messages: readonly TemplateMessage[],
    options: ApplyChatOptions & { tokenize?: true; return_dict?: false; return_tensors: 'tf' },
  ): Promise<tf.Tensor2D>;
  async apply_chat_template(
    messages: readonly TemplateMessage[],
    options: ApplyChatOptions = {},
  ): Promise<string | number[] | tf.Tensor2D | BatchEncoding<number[]> | BatchEncoding<tf.Tensor2D>> {
    tables.CHAT_TABLE.check(options);
    const special = Object.entries(this.special_tokens).map(([name, token]) => [name, token.content] as const);
    const text = renderChat(messages, this.chat_templates, Object.fromEntries(special), options);
    if (options.tokenize === false) return text;
    const { truncation, max_length, return_dict, return_tensors } = options;
    const ids = await this.encodeOne(text, { add_special_tokens: false, truncation, max_length });
    const mask = ids.map(() => 1);
    if (return_tensors !== 'tf') return return_dict ? new BatchEncoding(ids, mask) : ids;
    const encoding = await tensorsOf([ids], [mask]);
    if (return_dict) return encoding;
    encoding.attention_mask.dispose();
    return encoding.input_ids;
  }

  private async encodeOne(text: string, options: EncodeOptions): Promise<number[]> {
    const lone = /\p{Surrogate}/u.exec(text);
    if (lone) {
      throw new TokenizerError(
        `The text has half of a surrogate pair at position ${lone.index}: it is no valid Unicode. Was it cut in the ` +
          `middle of a character?`,
        { position: lone.index },
      );
    }
    const special = options.add_special_tokens ?? true;
    // before the work is done
    const length = tables.cuts(options) ? this.maxLength(options.max_length, 'truncation') : Infinity;
    const ids = await this.backend.encode(text, special);
    if (ids.length <= length) return ids;
    const body = special ? await this.backend.encode(text, false) : ids;
    return cutIds({ ids, body, length, side: options.truncation_side ?? this.truncation_side });
  }

  private async encodeAll(texts: readonly string[], options: BatchEncodeOptions): Promise<BatchEncoding> {
    const rows = await Promise.all(texts.map((text) => this.encodeOne(text, options)));
    return this.padTo(rows, options);
  }

  private padTo(rows: readonly (readonly number[])[], options: PadOptions): BatchEncoding {
    const masks = rows.map((row) => row.map(() => 1));
    if (!tables.pads({ padding: options.padding ?? true })) {
      return new BatchEncoding(
        rows.map((row) => [...row]),
        masks,
      );
    }
    // longer rows stay as they are, as in transformers
    const full = options.padding === 'max_length';
    let length = full ? this.maxLength(options.max_length, "padding: 'max_length'") : longest(rows);
    const multiple = options.pad_to_multiple_of ?? 1;
    length = Math.ceil(length / multiple) * multiple;
    const side = options.padding_side ?? this.padding_side;
    const id = rows.some((row) => row.length < length) ? this.padId() : 0;
    return new BatchEncoding(padRows(rows, length, id, side), padRows(masks, length, 0, side));
  }

  private decodeRows(rows: readonly number[][], options: DecodeOptions): Promise<string[]> {
    return Promise.all(rows.map((row) => this.decodeRow(row, options)));
  }

  private async decodeRow(ids: readonly number[], options: DecodeOptions): Promise<string> {
    const text = await this.backend.decode(ids, options.skip_special_tokens ?? false);
    return this.cleansUp(options) ? cleanUpSpaces(text) : text;
  }

  private cleansUp(options: DecodeOptions): boolean {
    const { clean_up_tokenization_spaces: asked } = options;
    if (asked != null) return asked;
    return this.files.config.clean_up_tokenization_spaces === true && this.files.tokenizer.model?.type !== 'BPE';
  }

  private maxLength(given: number | null | undefined, needed: string): number {
    const length = given ?? this.model_max_length;
    if (length !== null) return length;
    throw new TokenizerError(
      `${needed} needs max_length, an integer of 0 or more: this tokenizer has no model_max_length to go by.`,
      { option: 'max_length', got: given },
    );
  }

  private padId(): number {
    const id = this.pad_token_id ?? this.eos_token_id;
    if (id === null) {
      throw new TokenizerError(
        `The tokenizer in ${this.files.source} has neither a pad nor an eos token, so rows of different lengths cannot ` +
          `be padded. Set tokenizer.pad_token, add pad_token to tokenizer_config.json, or use padding: false.`,
        { file: this.files.source },
      );
    }
    return id;
  }
}

function sideOf(side: unknown, name: string): Side {
  if (side === 'left' || side === 'right') return side;
  throw new TokenizerError(`${name} is ${quote(side)}; expected 'left' or 'right'.`, { option: name, got: side });
}

function checkTexts(texts: unknown, where: string): void {
  if (Array.isArray(texts) && texts.every((text) => typeof text === 'string')) return;
  const at = Array.isArray(texts) ? texts.findIndex((text) => typeof text !== 'string') : -1;
  const got = at < 0 ? quote(texts) : `${quote((texts as unknown[])[at])} at position ${at}`;
  const also = where === 'tokenizer()' ? 'a text or ' : '';
  throw new TokenizerError(`${where} got ${got}; expected ${also}a list of texts.`, { got: texts });
}

/** @throws TokenizerError for rows that make no rectangle */
async function tensorsOf(ids: number[][], mask: number[][]): Promise<BatchEncoding<tf.Tensor2D>> {
  const lengths = ids.map((row) => row.length);
  if (ids.length === 0 || lengths.some((length) => length !== lengths[0])) {
    throw new TokenizerError(
      ids.length === 0
        ? 'tokenizer() got no texts, of which there is no tensor.'
        : `The rows are ${[...new Set(lengths)].slice(0, 4).join(', ')} ids long, and a tensor has rows of one length. Set padding: true, and ` +
            `truncation: true with max_length where texts are long.`,
      { lengths },
    );
  }
  return BatchEncoding.tensors(ids, mask);
}
