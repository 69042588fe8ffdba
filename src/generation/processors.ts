/**
 * Logits processors: each changes one row of scores in place before a token is chosen. Names, order of effects and
 * arithmetic are those of transformers' generation/logits_process.py (5.18); sums are taken in float64.
 */
import { isPromise } from '../base/async.js';
import { GenerationError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import { logSoftmax } from './scores.js';

/** Changes the scores of the next token. Own classes may be given to generate() as `logits_processor`. */
export interface LogitsProcessor {
  /**
   * @param input_ids the row so far: prompt (without padding) and new tokens
   * @param scores one score per id of the vocabulary, changed in place; -Infinity removes an id
   * @param row which row of the batch, or which beam
   */
  process(input_ids: readonly number[], scores: Float32Array, row: number): void;
}

/**
 * Applies processors to a row of scores, in order.
 * @throws GenerationError for one that is asynchronous: the token would be chosen before it has done anything
 */
export function applyProcessors(
  processors: readonly LogitsProcessor[],
  input_ids: readonly number[],
  scores: Float32Array,
  row: number,
): void {
  for (const processor of processors) {
    const result: unknown = processor.process(input_ids, scores, row);
    if (isPromise(result))
      throw promised(`process() of the logits processor ${processor.constructor.name}`, 'change the scores');
  }
}

function promised(what: string, then: string): GenerationError {
  return new GenerationError(
    `${what} returned a promise. It must ${then} before it returns: make it a plain function, not an async one, and ` +
      `fetch what it needs before generate() is called.`,
    { what },
  );
}

const eachOf = (ids: readonly number[], scores: Float32Array, value: number): void => {
  for (const id of ids) if (id < scores.length) scores[id] = value;
};

/** Forbids the end while the row, prompt included, is shorter than min_length. */
export class MinLengthLogitsProcessor implements LogitsProcessor {
  constructor(
    private readonly min_length: number,
    private readonly eos_token_id: readonly number[],
  ) {}
  process(input_ids: readonly number[], scores: Float32Array): void {
    if (input_ids.length < this.min_length) eachOf(this.eos_token_id, scores, -Infinity);
  }
}

/** Forbids the end while there are fewer than min_new_tokens new tokens. */
export class MinNewTokensLengthLogitsProcessor implements LogitsProcessor {
  constructor(
    private readonly prompt_length: number,
    private readonly min_new_tokens: number,
    private readonly eos_token_id: readonly number[],
  ) {}
  process(input_ids: readonly number[], scores: Float32Array): void {
    if (input_ids.length - this.prompt_length < this.min_new_tokens) eachOf(this.eos_token_id, scores, -Infinity);
  }
}

/** Makes ids that occurred less likely (penalty above 1) or more (below 1): positive scores are divided, negative ones multiplied. */
export class RepetitionPenaltyLogitsProcessor implements LogitsProcessor {
  private readonly penalty: number;
  constructor(penalty: number) {
    this.penalty = Math.fround(penalty); // as torch multiplies float32, and as programs do
  }
  process(input_ids: readonly number[], scores: Float32Array): void {
    for (const id of new Set(input_ids)) {
      if (id < scores.length) scores[id] = scores[id]! < 0 ? scores[id]! * this.penalty : scores[id]! / this.penalty;
    }
  }
}

/** Lets no sequence of ngram_size ids occur twice. */
export class NoRepeatNGramLogitsProcessor implements LogitsProcessor {
  constructor(private readonly ngram_size: number) {}
  process(input_ids: readonly number[], scores: Float32Array): void {
    const prefix = this.ngram_size - 1;
    const last = input_ids.length - prefix; // where the last ids, which may begin a repetition, start
    if (last < 1) return;
    const banned: number[] = [];
    for (let start = 0; start < last; start++) {
      let k = 0;
      while (k < prefix && input_ids[start + k] === input_ids[last + k]) k++;
      if (k === prefix) banned.push(input_ids[start + prefix]!);
    }
    eachOf(banned, scores, -Infinity);
  }
}

/** Adds a bias to the last id of a sequence whenever the row ends in the ids before it. */
export class SequenceBiasLogitsProcessor implements LogitsProcessor {
  constructor(private readonly sequence_bias: readonly (readonly [readonly number[], number])[]) {}
  process(input_ids: readonly number[], scores: Float32Array): void {
    const bias = new Map<number, number>();
    for (const [sequence, value] of this.sequence_bias) {
      const prefix = sequence.length - 1;
      const start = input_ids.length - prefix;
      if (start < 0) continue;
      let k = 0;
      while (k < prefix && sequence[k] === input_ids[start + k]) k++;
      if (k === prefix) bias.set(sequence[prefix]!, (bias.get(sequence[prefix]!) ?? 0) + value);
    }
    for (const [id, value] of bias) {
      if (id >= scores.length) {
        throw new GenerationError(
          `sequence_bias or bad_words_ids names the id ${id}; the model's vocabulary has ${scores.length} ids.`,
          { id, vocab_size: scores.length },
        );
      }
      scores[id]! += value;
    }
  }
}

/** Forbids sequences of ids. A sequence that is just an end token is left alone. */
export class NoBadWordsLogitsProcessor extends SequenceBiasLogitsProcessor {
  constructor(bad_words_ids: readonly (readonly number[])[], eos_token_id: readonly number[] = []) {
    const kept = bad_words_ids.filter((ids) => !(ids.length === 1 && eos_token_id.includes(ids[0]!)));
    super(kept.map((ids) => [ids, -Infinity] as const));
  }
}

/** Which ids may come next in a row of the batch. */
export type PrefixAllowedTokens = (batch_id: number, input_ids: readonly number[]) => readonly number[];

/** Allows only the ids that a function names. */
export class PrefixConstrainedLogitsProcessor implements LogitsProcessor {
  constructor(
    private readonly allowed: PrefixAllowedTokens,
    private readonly batch_id: number,
  ) {}
  process(input_ids: readonly number[], scores: Float32Array): void {
    const allowed: unknown = this.allowed(this.batch_id, input_ids);
    if (isPromise(allowed)) throw promised('prefix_allowed_tokens_fn', 'return a list of ids');
    if (!Array.isArray(allowed) && !ArrayBuffer.isView(allowed) && !(allowed instanceof Set)) {
      throw new GenerationError(
        `prefix_allowed_tokens_fn returned ${quote(allowed)} for row ${this.batch_id}; expected a list of ids.`,
        { row: this.batch_id, got: allowed },
      );
    }
    const ids = new Set(allowed as Iterable<number>);
    if (ids.size === 0) {
      throw new GenerationError(
        `prefix_allowed_tokens_fn returned an empty list for row ${this.batch_id} after ${input_ids.length} ids: no ` +
          `token could be chosen. Let it name at least one id (an end token, where the constraint is met).`,
        { row: this.batch_id, length: input_ids.length },
      );
    }
    let left = false;
    for (let i = 0; i < scores.length; i++) {
      if (!ids.has(i)) scores[i] = -Infinity;
      else if (scores[i] !== -Infinity) left = true;
    }
    // Where other processors removed all that is allowed, the constraint wins.
    if (!left) eachOf([...ids], scores, 0);
  }
}

/** Makes the second id of a row the given one. */
export class ForcedBOSTokenLogitsProcessor implements LogitsProcessor {
  constructor(private readonly bos_token_id: number) {}
  process(input_ids: readonly number[], scores: Float32Array): void {
    if (input_ids.length !== 1) return;
    scores.fill(-Infinity);
    eachOf([this.bos_token_id], scores, 0);
  }
}

/** Makes the last id before max_length an end token. */
export class ForcedEOSTokenLogitsProcessor implements LogitsProcessor {
  constructor(
    private readonly max_length: number,
    private readonly eos_token_id: readonly number[],
  ) {}
  process(input_ids: readonly number[], scores: Float32Array): void {
    if (input_ids.length !== this.max_length - 1) return;
    scores.fill(-Infinity);
    eachOf(this.eos_token_id, scores, 0);
  }
}

const FLOAT32_MAX = 3.4028234663852886e38;

/** Puts 0 for NaN and the largest finite numbers for infinities. */
export class InfNanRemoveLogitsProcessor implements LogitsProcessor {
  process(_input_ids: readonly number[], scores: Float32Array): void {
    for (let i = 0; i < scores.length; i++) {
      if (Number.isNaN(scores[i])) scores[i] = 0;
      else if (scores[i] === Infinity) scores[i] = FLOAT32_MAX;
      else if (scores[i] === -Infinity) scores[i] = -FLOAT32_MAX;
    }
  }
}

/** Makes the end more likely, exponentially with every token after `start` new ones. */
export class ExponentialDecayLengthPenalty implements LogitsProcessor {
  private readonly start: number;
  constructor(
    [start, factor]: readonly [number, number],
    private readonly eos_token_id: readonly number[],
    prompt_length: number,
  ) {
    this.start = start + prompt_length;
    this.factor = factor;
  }
  private readonly factor: number;
  process(input_ids: readonly number[], scores: Float32Array): void {
    const over = input_ids.length - this.start;
    if (over <= 0) return;
    for (const id of this.eos_token_id) {
      // An end that is forbidden (min_new_tokens) stays so: -Infinity and an infinite penalty would make NaN.
      if (scores[id] !== -Infinity) scores[id]! += Math.abs(scores[id]!) * (this.factor ** over - 1);
    }
  }
}

/** Forbids ids. */
export class SuppressTokensLogitsProcessor implements LogitsProcessor {
  constructor(private readonly suppress_tokens: readonly number[]) {}
  process(_input_ids: readonly number[], scores: Float32Array): void {
    eachOf(this.suppress_tokens, scores, -Infinity);
  }
}

/** Forbids ids as the first new token. */
export class SuppressTokensAtBeginLogitsProcessor implements LogitsProcessor {
  constructor(
    private readonly begin_suppress_tokens: readonly number[],
    private readonly begin_index: number,
  ) {}
  process(input_ids: readonly number[], scores: Float32Array): void {
    if (input_ids.length === this.begin_index) eachOf(this.begin_suppress_tokens, scores, -Infinity);
  }
}

/** Makes scores log-probabilities. */
export class LogitNormalization implements LogitsProcessor {
  process(_input_ids: readonly number[], scores: Float32Array): void {
    logSoftmax(scores);
  }
}

/** Removes the rows that pad the embedding: ids from the tokenizer's size on, which no text gives. */
export class VocabularyLimitLogitsProcessor implements LogitsProcessor {
  constructor(private readonly vocab_limit: number) {}
  process(_input_ids: readonly number[], scores: Float32Array): void {
    if (this.vocab_limit < scores.length) scores.fill(-Infinity, this.vocab_limit);
  }
}
