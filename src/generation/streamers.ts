import * as kinds from '../base/option_kinds.js';
import { OptionTable, type OptionRules, type OtherNames } from '../base/options.js';
import { GenerationError } from '../base/errors.js';
import { IncrementalDecoder } from '../tokenizers/index.js';
import type { DecodeOptions, Tokenizer } from '../tokenizers/index.js';

/**
 * Takes tokens while they are generated. generate() waits for both methods, so a slow streamer slows generation down
 * rather than filling memory.
 */
export interface Streamer {
  /**
   * First the prompt, then the new tokens, one or a few at a time.
   *
   * @param rows per row of the batch its new ids; an empty list for a row that has ended
   */
  put(rows: readonly (readonly number[])[]): void | Promise<void>;
  /** Nothing more comes. */
  end(): void | Promise<void>;
  /** generate() failed; end() is not called then. */
  fail?(error: unknown): void;
}

/** Options of TextStreamer. */
export interface TextStreamerOptions extends DecodeOptions {
  /** Leaves the prompt out. Default false. */
  skip_prompt?: boolean;
  /** Takes each piece of text. Default: writes it to standard output, with a line end at the end. */
  callback_function?: (text: string) => void | Promise<void>;
  /** Takes the ids as they come, the prompt's too unless skipped. */
  token_callback_function?: (ids: readonly number[]) => void | Promise<void>;
}

const RULES: OptionRules<TextStreamerOptions> = {
  skip_special_tokens: { kind: kinds.boolean },
  clean_up_tokenization_spaces: { kind: kinds.orNull(kinds.boolean) },
  skip_prompt: { kind: kinds.boolean, default: false },
  callback_function: { kind: kinds.func },
  token_callback_function: { kind: kinds.func },
};
const OTHERS: OtherNames = {
  decode_kwargs: { why: 'skip_special_tokens and clean_up_tokenization_spaces are options themselves', off: [null] },
  timeout: { why: 'a reader waits as long as generation takes; stop it with the signal of generate()', off: [null] },
  on_finalized_text: 'callback_function',
};
const STREAMER_TABLE = new OptionTable<TextStreamerOptions>('new TextStreamer()', RULES, { others: OTHERS });

/** Options of TextIteratorStreamer. */
export interface TextIteratorStreamerOptions extends TextStreamerOptions {
  /** Unread pieces to keep at most. Default 16. */
  high_water_mark?: number;
}
const ITERATOR_TABLE = new OptionTable<TextIteratorStreamerOptions>(
  'new TextIteratorStreamer()',
  { ...RULES, high_water_mark: { kind: kinds.integer({ min: 1 }), default: 16 } },
  { others: OTHERS },
);

/** CJK ideographs: these scripts put no spaces between words (the blocks of transformers' TextStreamer). */
const IDEOGRAPH =
  /[\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B820}-\u{2CEAF}\uF900-\uFAFF\u{2F800}-\u{2FA1F}]$/u;

/**
 * Writes text as soon as whole words are there: up to the last space, at once at a line end or after an ideograph, and
 * the rest at the end. The pieces put together are the decoded text. For one row.
 *
 * @example
 * const streamer = new TextStreamer(tokenizer, { skip_prompt: true, skip_special_tokens: true });
 * await model.generate({ input_ids, max_new_tokens: 40, streamer });
 */
export class TextStreamer implements Streamer {
  protected readonly options: TextStreamerOptions;
  private readonly decoder: IncrementalDecoder;
  /** Text that is decoded and not given out: the beginning of a word. */
  private word = '';
  private prompt = true;

  constructor(tokenizer: Pick<Tokenizer, 'decode'>, options: TextStreamerOptions = {}) {
    if (!(this instanceof TextIteratorStreamer)) STREAMER_TABLE.check(options);
    this.options = options;
    const { skip_special_tokens, clean_up_tokenization_spaces } = options;
    this.decoder = new IncrementalDecoder(tokenizer, { skip_special_tokens, clean_up_tokenization_spaces });
  }

  /** @throws GenerationError for more than one row */
  async put(rows: readonly (readonly number[])[]): Promise<void> {
    if (rows.length !== 1) {
      throw new GenerationError(
        `A text streamer takes one row, and this batch has ${rows.length}. Stream one prompt at a time, or write a ` +
          `streamer that takes rows of ids.`,
        { rows: rows.length },
      );
    }
    const prompt = this.prompt;
    this.prompt = false;
    if (prompt && this.options.skip_prompt) return;
    const row = rows[0]!;
    await this.options.token_callback_function?.(row);
    // New ids one at a time: where a word ends must not depend on how many tokens come at once.
    for (const ids of prompt ? [row] : row.map((id) => [id])) {
      this.word += await this.decoder.push(ids);
      const ready = this.ready();
      if (ready === 0) continue;
      const text = this.word.slice(0, ready);
      this.word = this.word.slice(ready);
      await this.on_finalized_text(text, false);
    }
  }

  async end(): Promise<void> {
    const text = this.word + (await this.decoder.flush());
    this.word = '';
    this.prompt = true;
    await this.on_finalized_text(text, true);
  }

  /** What is held back is dropped; what comes next is a prompt again. */
  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- for those that extend this class
  fail(_error: unknown): void {
    this.word = '';
    this.prompt = true;
    this.decoder.reset();
  }

  private ready(): number {
    if (!this.decoder.holding && (this.word.endsWith('\n') || IDEOGRAPH.test(this.word))) return this.word.length;
    return this.word.lastIndexOf(' ') + 1;
  }

  /** Gives a piece of text out; at the end of the stream it may be empty. */
  protected async on_finalized_text(text: string, stream_end: boolean): Promise<void> {
    if (this.options.callback_function) {
      if (text !== '') await this.options.callback_function(text);
      return;
    }
    const output = stream_end ? text + '\n' : text;
    await new Promise<void>((resolve, reject) => {
      process.stdout.write(output, (error) => (error ? reject(error) : resolve()));
    });
  }
}

/** The text of one generation on its way to a reader. */
interface Stream {
  /** Not read yet. */
  readonly pieces: string[];
  /** A reader has taken it. */
  taken: boolean;
  /** Its reader is done with it: what still comes is thrown away. */
  left: boolean;
  ended: boolean;
  failure?: { error: unknown };
}

/**
 * A TextStreamer to iterate over. Generation waits while `high_water_mark` pieces are unread, and goes on when the
 * reader stops early (the rest is thrown away).
 *
 * If generate() fails, its promise is rejected and so is the iteration, with the same error.
 *
 * A streamer may be used again: each iteration reads one generation, in their order, and waits for it to begin. Once one
 * has been read, a further one that nobody reads does not wait: a reader of the first of several prompts may leave it at
 * that.
 *
 * @example
 * const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true });
 * const done = model.generate({ input_ids, streamer });
 * for await (const text of streamer) process.stdout.write(text);
 * await done;
 */
export class TextIteratorStreamer extends TextStreamer implements AsyncIterable<string> {
  private readonly mark: number;
  /** What is being written. */
  private writing: Stream | undefined;
  /** Begun, and taken by no reader, in the order of writing. */
  private readonly unread: Stream[] = [];
  private everRead = false;
  private wake: (() => void)[] = [];

  constructor(tokenizer: Pick<Tokenizer, 'decode'>, options: TextIteratorStreamerOptions = {}) {
    const filled = ITERATOR_TABLE.fill<'high_water_mark'>(options);
    super(tokenizer, filled);
    this.mark = filled.high_water_mark;
  }

  protected override async on_finalized_text(text: string, stream_end: boolean): Promise<void> {
    const stream = this.open();
    if (text !== '' && !stream.left) {
      stream.pieces.push(text);
      await this.options.callback_function?.(text);
    }
    if (stream_end) this.close(stream);
    this.signal();
    while (!stream.ended && !stream.left && stream.pieces.length >= this.mark && (stream.taken || !this.everRead)) {
      await this.wait();
    }
  }

  override fail(error: unknown): void {
    super.fail(error);
    const stream = this.open();
    stream.failure = { error };
    this.close(stream);
    this.signal();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    while (this.unread.length === 0) await this.wait();
    const stream = this.unread.shift()!;
    stream.taken = true;
    try {
      for (;;) {
        const text = stream.pieces.shift();
        if (text !== undefined) {
          this.signal();
          yield text;
        } else if (stream.failure) {
          throw stream.failure.error;
        } else if (stream.ended) {
          return;
        } else {
          await this.wait();
        }
      }
    } finally {
      stream.left = this.everRead = true;
      stream.pieces.length = 0;
      this.signal();
    }
  }

  private open(): Stream {
    if (!this.writing) {
      this.writing = { pieces: [], taken: false, left: false, ended: false };
      this.unread.push(this.writing);
    }
    return this.writing;
  }

  private close(stream: Stream): void {
    stream.ended = true;
    this.writing = undefined;
  }

  private wait(): Promise<void> {
    return new Promise((resolve) => this.wake.push(resolve));
  }

  private signal(): void {
    const waiting = this.wake;
    this.wake = [];
    for (const resolve of waiting) resolve();
  }
}
