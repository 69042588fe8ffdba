import type { DecodeOptions } from './options.js';

/** What decodes a row of ids: a Tokenizer, or what stands for one. */
export interface RowDecoder {
  decode(ids: number[], options?: DecodeOptions): Promise<string>;
}

/**
 * A run of replacement characters longer than this cannot become text any more: the longest character takes 4 bytes,
 * and a byte-fallback decoder shows each byte of it, and of the one before, as a replacement character of its own.
 */
const LONGEST_PENDING = 8;
/** Ids without any text that are kept as context at most. */
const MOST_SILENT = 32;

/**
 * Decodes a stream of ids so that the pieces put together are the text of all ids, and no piece ends in half a
 * character. Each call decodes a short window (the ids of the last piece and the new ones), so a stream of any length
 * costs the same per token.
 *
 * @example
 * const decoder = new IncrementalDecoder(tokenizer);
 * for (const id of ids) text += await decoder.push([id]);
 * text += await decoder.flush();
 */
export class IncrementalDecoder {
  /** Ids of the window. Those before `done` are text that has been given out; they only give context. */
  private window: number[] = [];
  private done = 0;

  constructor(
    private readonly tokenizer: RowDecoder,
    private readonly options: DecodeOptions = {},
  ) {}

  /** True while ids are held back that may be the first part of a character. */
  get holding(): boolean {
    return this.done < this.window.length;
  }

  /** Takes further ids; returns the text that is certain by now and was not returned before. */
  async push(ids: readonly number[]): Promise<string> {
    // Not push(...ids): a prompt may have more ids than a call may have arguments.
    for (const id of ids) this.window.push(id);
    if (!this.holding) return '';
    return this.take(await this.before(), await this.tokenizer.decode(this.window, this.options), false);
  }

  /** Returns what is held back, replacement characters included, and begins anew. */
  async flush(): Promise<string> {
    const text = this.holding
      ? this.take(await this.before(), await this.tokenizer.decode(this.window, this.options), true)
      : '';
    this.reset();
    return text;
  }

  /** Forgets what is held back, and begins anew. */
  reset(): void {
    this.window = [];
    this.done = 0;
  }

  private async before(): Promise<string> {
    return this.done === 0 ? '' : this.tokenizer.decode(this.window.slice(0, this.done), this.options);
  }

  private take(before: string, text: string, all: boolean): string {
    const pending = /\uFFFD*$/.exec(text)![0].length;
    if (pending > 0 && pending <= LONGEST_PENDING && !all) return '';
    if (text.length <= before.length) {
      // No text, and yet it may tell in what comes: a space that a decoder strips at the start. Skipped special tokens
      // end up here too, so the oldest must go at some time.
      if (this.window.length - this.done > MOST_SILENT) this.window.splice(this.done, MOST_SILENT / 2);
      return '';
    }
    this.window = this.window.slice(this.done);
    this.done = this.window.length;
    return text.slice(before.length);
  }
}
