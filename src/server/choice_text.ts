/** The text of one choice as its ids come: whole characters only, and nothing of a stop string. */
import type { TokenLogprobs } from '../engine/scheduler/types.js';
import { IncrementalDecoder, type Tokenizer } from '../tokenizers/index.js';
import { beginningAtEnd } from './text_ends.js';

/** A piece of text, with what is known of the tokens that it is made of. */
export interface Piece {
  text: string;
  logprobs: TokenLogprobs[];
}

export class ChoiceText {
  private readonly decoder: IncrementalDecoder;
  /** Decoded, and held back: it may be the beginning of a stop string. */
  private held = '';
  /** Of tokens whose text was not given out yet, and where in `held` each ends. */
  private waiting: { logprobs: TokenLogprobs; end: number }[] = [];
  /** A stop string was written. */
  stopped = false;

  /**
   * @param context ids before the text: some decoders treat the first id of a text differently
   * @param stops none of them empty
   */
  private constructor(
    tokenizer: Tokenizer,
    private readonly stops: readonly string[],
  ) {
    this.decoder = new IncrementalDecoder(tokenizer, { skip_special_tokens: true });
  }

  static async after(tokenizer: Tokenizer, context: readonly number[], stops: readonly string[]): Promise<ChoiceText> {
    const text = new ChoiceText(tokenizer, stops);
    await text.skip(context.slice(-8));
    return text;
  }

  private async skip(ids: readonly number[]): Promise<void> {
    if (ids.length > 0) await this.decoder.push(ids);
    // half a character at the end of the prompt comes whole, with the text
  }

  async push(ids: readonly number[], logprobs?: readonly TokenLogprobs[]): Promise<Piece> {
    if (this.stopped) return NOTHING;
    for (const [at, id] of ids.entries()) {
      this.held += await this.decoder.push([id]);
      if (logprobs) this.waiting.push({ logprobs: logprobs[at]!, end: this.held.length });
      const cut = this.firstStop();
      if (cut >= 0) return this.stopAt(cut);
    }
    return this.give(this.held.length - this.possibleStop());
  }

  /** What was held back. */
  async end(): Promise<Piece> {
    if (this.stopped) return NOTHING;
    this.held += await this.decoder.flush();
    const cut = this.firstStop();
    if (cut >= 0) return this.stopAt(cut);
    for (const each of this.waiting) each.end = Math.min(each.end, this.held.length);
    return this.give(this.held.length, true);
  }

  private firstStop(): number {
    const found = this.stops.map((stop) => this.held.indexOf(stop)).filter((at) => at >= 0);
    return found.length ? Math.min(...found) : -1;
  }

  /** How many characters at the end may be the beginning of a stop string. */
  private possibleStop(): number {
    return Math.max(0, ...this.stops.map((stop) => beginningAtEnd(this.held, stop)));
  }

  private stopAt(cut: number): Piece {
    this.stopped = true;
    // tokens that have a part before the stop string
    const kept = this.waiting.filter(({ end }, at) => (this.waiting[at - 1]?.end ?? 0) < cut || end <= cut);
    const piece = { text: this.held.slice(0, cut), logprobs: kept.map((each) => each.logprobs) };
    this.held = '';
    this.waiting = [];
    return piece;
  }

  private give(length: number, all = false): Piece {
    const text = this.held.slice(0, length);
    const ready = all ? this.waiting : this.waiting.filter(({ end }) => end <= length);
    this.waiting = all
      ? []
      : this.waiting.filter(({ end }) => end > length).map((each) => ({ ...each, end: each.end - length }));
    this.held = this.held.slice(length);
    return { text, logprobs: ready.map((each) => each.logprobs) };
  }
}

const NOTHING: Piece = { text: '', logprobs: [] };
