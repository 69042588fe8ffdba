/**
 * Stopping criteria: each looks at one row after every new token and says whether the row has ended.
 */
import type { Tokenizer } from '../tokenizers/index.js';

/** Ends rows. Own ones may be given to generate() as `stopping_criteria`. */
export interface StoppingCriteria {
  /** What a row that this ended reports as its finish reason. Default 'criteria'. */
  readonly reason?: FinishReason;
  /**
   * @param input_ids the row so far: prompt (without padding) and new tokens, the newest last
   * @param scores the processed scores that the newest token was chosen from; null where the engine chose
   * @param row which row of the batch
   */
  done(input_ids: readonly number[], scores: Float32Array | null, row: number): boolean | Promise<boolean>;
}

/** Why a row ended: an end token, the greatest length, a stop string, max_time, an abort, or a criterion of the caller. */
export type FinishReason = 'eos' | 'length' | 'stop_string' | 'time' | 'abort' | 'criteria';

/** Ends a row at one of the end tokens. */
export class EosTokenCriteria implements StoppingCriteria {
  readonly reason = 'eos';
  constructor(private readonly eos_token_id: readonly number[]) {}
  done(input_ids: readonly number[]): boolean {
    return this.eos_token_id.includes(input_ids.at(-1)!);
  }
}

/** Ends a row at a length, prompt included. */
export class MaxLengthCriteria implements StoppingCriteria {
  readonly reason = 'length';
  constructor(private readonly max_length: number) {}
  done(input_ids: readonly number[]): boolean {
    return input_ids.length >= this.max_length;
  }
}

/** Ends all rows once a time has passed. */
export class MaxTimeCriteria implements StoppingCriteria {
  readonly reason = 'time';
  private readonly end: number;
  /** @param max_time seconds from now */
  constructor(max_time: number) {
    this.end = performance.now() + 1000 * max_time;
  }
  done(): boolean {
    return performance.now() >= this.end;
  }
}

/**
 * Ends a row whose text, with the newest token, contains a stop string that it did not contain before. The string may
 * begin in any earlier token and end inside the newest one.
 */
export class StopStringCriteria implements StoppingCriteria {
  readonly reason = 'stop_string';
  /** More ids than a stop string can span: a token is at least one byte, and a character at most four of them. */
  private readonly window: number;
  private readonly longest: number;

  constructor(
    private readonly stop_strings: readonly string[],
    private readonly tokenizer: Pick<Tokenizer, 'decode'>,
  ) {
    this.longest = Math.max(...stop_strings.map((s) => s.length));
    this.window = 4 * this.longest + 8;
  }

  async done(input_ids: readonly number[]): Promise<boolean> {
    const tail = input_ids.slice(-this.window);
    const text = await this.tokenizer.decode(tail);
    const candidates = this.stop_strings.filter((s) => text.includes(s));
    if (candidates.length === 0) return false;
    const before = (await this.tokenizer.decode(tail.slice(0, -1))).replace(/\uFFFD+$/, '');
    // An occurrence counts when it ends in what the newest token added.
    const from = Math.max(0, before.length - this.longest + 1);
    return candidates.some((s) => {
      for (let at = text.indexOf(s, from); at >= 0; at = text.indexOf(s, at + 1)) {
        if (at + s.length > before.length) return true;
      }
      return false;
    });
  }
}
