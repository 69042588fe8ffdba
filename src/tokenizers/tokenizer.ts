import { TokenizerError } from '../base/errors.js';
import { createBackend } from './backend.js';
import type { TokenizerBackend, TokenizerBackendName } from './backend.js';
import { renderChat } from './chat_template.js';
import type { ChatTemplateOptions, TemplateMessage } from './chat_template.js';
import { readTokenizerFiles } from './files.js';
import type { TokenizerFiles } from './files.js';
import { cleanUpSpaces, readSpecialTokens } from './special_tokens.js';
import type { SpecialTokens } from './special_tokens.js';

/** Options of Tokenizer.from_pretrained. */
export interface TokenizerOptions {
  /** 'native' or 'javascript'. Default: native where it loads, else the one in JavaScript; both give the same ids. */
  backend?: TokenizerBackendName;
  /** Which side batches are padded on. Default: padding_side of tokenizer_config.json, else 'left'. */
  padding_side?: 'left' | 'right';
}

/** Options of encode. */
export interface EncodeOptions {
  /** Adds the tokens that the tokenizer puts around every text (none for GPT-NeoX). Default true. */
  add_special_tokens?: boolean;
  /** Cuts the text so that its ids, with the special tokens around it, are max_length at most. Default false. */
  truncation?: boolean;
  /** Most ids of a text; needs truncation (or padding: 'max_length' in a batch). */
  max_length?: number;
  /** Which end is cut. Default: truncation_side of tokenizer_config.json, else 'right'. */
  truncation_side?: 'left' | 'right';
}

/** Options of batch_encode. */
export interface BatchEncodeOptions extends EncodeOptions {
  /** true or 'longest': to the longest row; 'max_length': to max_length; false: rows stay uneven. Default true. */
  padding?: boolean | 'longest' | 'max_length';
  /** Default: the tokenizer's padding_side. */
  padding_side?: 'left' | 'right';
  /** Lengthens the rows to a multiple of this. */
  pad_to_multiple_of?: number;
}

/** Ids of a batch, and which of them are text (1) or padding (0). Rows are of one length where padded. */
export interface BatchEncoding {
  input_ids: number[][];
  attention_mask: number[][];
}

/** Options of decode. */
export interface DecodeOptions {
  /** Leaves out special tokens. Default false. */
  skip_special_tokens?: boolean;
  /**
   * Takes out the spaces that some tokenizers put before punctuation and contractions. Default:
   * clean_up_tokenization_spaces of tokenizer_config.json, which BPE tokenizers ignore (it would damage their text).
   */
  clean_up_tokenization_spaces?: boolean;
}

/**
 * Text to ids and back. Reads tokenizers in the Hugging Face layout.
 *
 * @example
 * const tokenizer = await Tokenizer.from_pretrained('models/tiny-books-mamba2');
 * const { input_ids, attention_mask } = await tokenizer.batch_encode(['Once upon', 'It is a truth']);
 * const text = await tokenizer.decode(input_ids[1], { skip_special_tokens: true });
 */
export class Tokenizer {
  /** Which side batches are padded on. A state-space model reads either exactly; 'left' is what Hugging Face uses. */
  padding_side: 'left' | 'right';

  private constructor(
    private readonly backend: TokenizerBackend,
    private readonly files: TokenizerFiles,
    /** The named special tokens. */
    readonly special_tokens: SpecialTokens,
    /** One more than the largest id: ids from here on are padding rows of the model's embedding. */
    readonly vocab_size: number,
    options: TokenizerOptions,
  ) {
    const side = options.padding_side ?? files.config.padding_side ?? 'left';
    if (side !== 'left' && side !== 'right') {
      throw new TokenizerError(`padding_side is ${JSON.stringify(side)}; expected 'left' or 'right'.`, { got: side });
    }
    this.padding_side = side;
  }

  /**
   * Reads the tokenizer of a model folder.
   *
   * @throws TokenizerError when there is none or a file is malformed
   */
  static async from_pretrained(dir: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
    return Tokenizer.from_files(await readTokenizerFiles(dir), options);
  }

  /** Makes a tokenizer from files that are parsed already. */
  static async from_files(files: TokenizerFiles, options: TokenizerOptions = {}): Promise<Tokenizer> {
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
    return this.files.chatTemplates;
  }
  get bos_token_id(): number | null {
    return this.special_tokens.bos_token?.id ?? null;
  }
  get eos_token_id(): number | null {
    return this.special_tokens.eos_token?.id ?? null;
  }
  get pad_token_id(): number | null {
    return this.special_tokens.pad_token?.id ?? null;
  }
  get unk_token_id(): number | null {
    return this.special_tokens.unk_token?.id ?? null;
  }

  /** The id of a token, null where there is none. */
  token_to_id(token: string): number | null {
    return this.backend.tokenToId(token) ?? null;
  }
  /** The token of an id (in the tokenizer's own spelling), null where there is none. */
  id_to_token(id: number): string | null {
    return this.backend.idToToken(id) ?? null;
  }
  /** Token to id, added tokens included. */
  get_vocab(): ReadonlyMap<string, number> {
    return this.backend.vocab();
  }

  /**
   * The ids of a text.
   *
   * @throws TokenizerError for what is not a text, half of a surrogate pair (it has no UTF-8 form), or a max_length with
   *   no room for the special tokens
   */
  async encode(text: string, options: EncodeOptions = {}): Promise<number[]> {
    if (typeof text !== 'string') {
      throw new TokenizerError(`encode() got ${describe(text)}; expected a text.`, { got: text });
    }
    const lone = /\p{Surrogate}/u.exec(text);
    if (lone) {
      throw new TokenizerError(
        `The text has half of a surrogate pair at position ${lone.index}: it is no valid Unicode. Was it cut in the ` +
          `middle of a character?`,
        { position: lone.index },
      );
    }
    const special = options.add_special_tokens ?? true;
    const ids = await this.backend.encode(text, special);
    return options.truncation ? this.truncate(text, ids, special, options) : ids;
  }

  /**
   * The ids of several texts, padded to one length by default.
   *
   * @throws TokenizerError as encode, and when padding is needed but the tokenizer has no pad or eos token
   */
  async batch_encode(texts: readonly string[], options: BatchEncodeOptions = {}): Promise<BatchEncoding> {
    if (!Array.isArray(texts)) {
      throw new TokenizerError(`batch_encode() got ${describe(texts)}; expected a list of texts.`, { got: texts });
    }
    const rows = await Promise.all((texts as readonly string[]).map((text) => this.encode(text, options)));
    return this.pad(rows, options);
  }

  /** Pads rows of ids to one length, with an attention mask. Options and errors as batch_encode. */
  pad(rows: readonly (readonly number[])[], options: BatchEncodeOptions = {}): BatchEncoding {
    const padding = options.padding ?? true;
    let length = Math.max(0, ...rows.map((row) => row.length));
    if (padding === 'max_length') length = Math.max(length, this.maxLength(options, "padding: 'max_length'"));
    const multiple = options.pad_to_multiple_of;
    if (multiple !== undefined) length = Math.ceil(length / multiple) * multiple;
    const left = (options.padding_side ?? this.padding_side) === 'left';
    const fill = (row: readonly number[], value: number, body: readonly number[]): number[] => {
      const count = padding === false ? 0 : length - row.length;
      const pads = new Array<number>(count).fill(value);
      return left ? [...pads, ...body] : [...body, ...pads];
    };
    const short = padding !== false && rows.some((row) => row.length < length);
    const id = short ? this.padId() : 0;
    return {
      input_ids: rows.map((row) => fill(row, id, row)),
      attention_mask: rows.map((row) =>
        fill(
          row,
          0,
          row.map(() => 1),
        ),
      ),
    };
  }

  /**
   * The text of ids. Bytes that are no UTF-8 give U+FFFD; ids that the tokenizer does not have give nothing.
   *
   * @throws TokenizerError for what is not a list of non-negative integers
   */
  async decode(ids: ArrayLike<number>, options: DecodeOptions = {}): Promise<string> {
    const list = Array.from(ids);
    const wrong = list.find((id) => !Number.isInteger(id) || id < 0);
    if (wrong !== undefined) {
      throw new TokenizerError(`decode() got the id ${wrong}; expected integers of 0 and more.`, { got: wrong });
    }
    const text = await this.backend.decode(list, options.skip_special_tokens ?? false);
    return this.cleansUp(options) ? cleanUpSpaces(text) : text;
  }

  /** The texts of several rows of ids. */
  async batch_decode(rows: readonly ArrayLike<number>[], options: DecodeOptions = {}): Promise<string[]> {
    return Promise.all(rows.map((ids) => this.decode(ids, options)));
  }

  /**
   * A chat as the model expects it: ids, or the text with `tokenize: false`. The ids get no further special tokens;
   * the template writes its own.
   *
   * @throws TokenizerError when the tokenizer has no chat template, or the template refuses the chat
   */
  apply_chat_template(
    messages: readonly TemplateMessage[],
    options: ChatTemplateOptions & { tokenize: false },
  ): Promise<string>;
  apply_chat_template(
    messages: readonly TemplateMessage[],
    options?: ChatTemplateOptions & { tokenize?: true },
  ): Promise<number[]>;
  async apply_chat_template(
    messages: readonly TemplateMessage[],
    options: ChatTemplateOptions & { tokenize?: boolean } = {},
  ): Promise<string | number[]> {
    const special = Object.entries(this.special_tokens).map(([name, token]) => [name, token.content] as const);
    const text = renderChat(messages, this.chat_templates, Object.fromEntries(special), options);
    return options.tokenize === false ? text : this.encode(text, { add_special_tokens: false });
  }

  private cleansUp(options: DecodeOptions): boolean {
    if (options.clean_up_tokenization_spaces !== undefined) return options.clean_up_tokenization_spaces;
    return this.files.config.clean_up_tokenization_spaces === true && this.files.tokenizer.model?.type !== 'BPE';
  }

  /** Cuts the ids of a text to max_length. The tokens around a text stay: it is the text that is cut (as in transformers). */
  private async truncate(text: string, ids: number[], special: boolean, options: EncodeOptions): Promise<number[]> {
    const length = this.maxLength(options, 'truncation');
    if (ids.length <= length) return ids;
    const body = special ? await this.backend.encode(text, false) : ids;
    const around = ids.length - body.length;
    if (around > length) {
      throw new TokenizerError(
        `max_length is ${length}, and the tokenizer puts ${around} special tokens around every text: there is no room ` +
          `for them. Raise max_length, or set add_special_tokens: false.`,
        { option: 'max_length', got: length, special_tokens: around },
      );
    }
    const before = around === 0 ? 0 : startOf(body, ids);
    const room = length - around;
    const side = options.truncation_side ?? this.files.config.truncation_side ?? 'right';
    const kept = side === 'left' ? body.slice(body.length - room) : body.slice(0, room);
    return [...ids.slice(0, before), ...kept, ...ids.slice(before + body.length)];
  }

  private maxLength(options: EncodeOptions, needed: string): number {
    const stored = this.files.config.model_max_length;
    // transformers writes 1e30 for "no limit".
    const length = options.max_length ?? (typeof stored === 'number' && stored < 1e9 ? stored : undefined);
    if (length === undefined || !Number.isInteger(length) || length < 0) {
      throw new TokenizerError(
        `${needed} needs max_length, an integer of 0 or more, and got ${describe(options.max_length)}.`,
        { option: 'max_length', got: options.max_length },
      );
    }
    return length;
  }

  private padId(): number {
    const id = this.pad_token_id ?? this.eos_token_id;
    if (id === null) {
      throw new TokenizerError(
        `The tokenizer in ${this.files.source} has neither a pad nor an eos token, so rows of different lengths cannot ` +
          `be padded. Add pad_token to tokenizer_config.json, or use padding: false.`,
        { file: this.files.source },
      );
    }
    return id;
  }
}

/** Where a text's own ids begin among those with special tokens around it. */
function startOf(body: readonly number[], ids: readonly number[]): number {
  let at = 0;
  while (at < ids.length - body.length && !body.every((id, i) => ids[at + i] === id)) at++;
  return at;
}

function describe(value: unknown): string {
  return typeof value === 'string' ? 'a text' : (JSON.stringify(value)?.slice(0, 60) ?? String(value));
}
