import { ArgumentError, GenerationError } from '../base/errors.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { GenerationConfig, ResolvedOptions } from './config.js';
import type { EngineState } from './engine.js';
import { checkIds, type IdRow, type IdsLike, readRows } from './ids.js';
import type { GenerationOptions } from './options.js';
import type { LogitsProcessor, PrefixAllowedTokens } from './processors.js';
import type { FinishReason, StoppingCriteria } from './stopping.js';
import type { Streamer } from './streamers.js';

/** What generate() takes beside the options of generation_config.json. */
export interface GenerateInputs extends GenerationOptions {
  /** Prompts, one row each; rows may be of different lengths, or padded on any side with an attention_mask. */
  input_ids: IdsLike;
  /** 1 for text and 0 for padding, of the shape of input_ids. Default: all text. */
  attention_mask?: IdsLike | null;
  /** Options to start from instead of the model's own. */
  generation_config?: GenerationConfig | null;
  /** Takes tokens as they come. */
  streamer?: Streamer | null;
  /** Needed by stop_strings; also tells which ids pad the vocabulary. */
  tokenizer?: Tokenizer | null;
  /** The caller's own processors, applied after those that the options ask for and before warpers. */
  logits_processor?: readonly LogitsProcessor[] | null;
  /** The caller's own criteria, beside those that the options ask for. */
  stopping_criteria?: readonly StoppingCriteria[] | null;
  /** Allows only the ids it names, given a row's number and its ids so far. */
  prefix_allowed_tokens_fn?: PrefixAllowedTokens | null;
  /** Prompts to move away from, with guidance_scale. Default: each prompt's last id. */
  negative_prompt_ids?: IdsLike | null;
  negative_prompt_attention_mask?: IdsLike | null;
  /** Stops: during the prefill by throwing its reason, afterwards by returning what there is (finish reason 'abort'). */
  signal?: AbortSignal | null;
  /** Called after each segment of the prefill with ids done and in all. */
  on_progress?: (done: number, total: number) => void;
  /**
   * A state to go on from, one row per prompt; input_ids are then what comes after it (rows may be empty). It is
   * advanced in place, up to and including the last new token, where rows are one to one (no beams, one sequence per
   * prompt); else up to the end of the prompts. It stays the caller's to dispose of.
   */
  state?: EngineState | null;
  /** Ids that were fed to `state` before, per row, for processors that look back. Default: none. */
  history?: readonly IdRow[] | null;
  /** Returns the state after the last token in the GenerateOutput; the caller disposes of it. Default false. */
  return_state?: boolean | null;
  /** Ids from here on pad the vocabulary and are never chosen. Default: the tokenizer's vocab_size, where one is given. */
  vocab_limit?: number | null;
  /**
   * Numbers of the rows' streams of random numbers, for batches that are parts of a larger one: that of the first
   * prompt's first row (default 0; the others follow), or of each prompt's first row.
   */
  first_stream?: number | readonly number[];
}

/** Inputs with which generate() returns a whole GenerateOutput. */
export type WholeOutput = { return_dict_in_generate: true } | { return_state: true };

/** Inputs with which generate() returns the rows alone, unless a generation_config asks for more. */
export interface RowsAlone {
  return_dict_in_generate?: false | null;
  return_state?: false | null;
}

/** What generate() returns with return_dict_in_generate. */
export interface GenerateOutput {
  /** Per row: its input row as it was given (padding included), then its new ids, filled to the longest with pad_token_id. */
  sequences: number[][];
  /** Per row its new ids, the end token included and without filling. */
  new_tokens: number[][];
  /** Per row, why it ended. */
  finish_reasons: FinishReason[];
  /** Processed scores: per step, per row. With output_scores. */
  scores?: Float32Array[][];
  /** Raw logits: per step, per row. With output_logits. */
  logits?: Float32Array[][];
  /** Beam search: per row its sum of log-probabilities divided by length to the power of length_penalty. */
  sequences_scores?: number[];
  /** Beam search: per row and step the row of the running beams (batch × num_beams) that its token came from. */
  beam_indices?: number[][];
  /** The state after the last token of each row. With return_state. */
  state?: EngineState;
}

const INPUT_KEYS = new Set([
  'input_ids',
  'attention_mask',
  'generation_config',
  'streamer',
  'tokenizer',
  'logits_processor',
  'stopping_criteria',
  'prefix_allowed_tokens_fn',
  'negative_prompt_ids',
  'negative_prompt_attention_mask',
  'signal',
  'on_progress',
  'state',
  'history',
  'return_state',
  'vocab_limit',
  'first_stream',
]);

/** The options among the inputs of a call. */
export function optionsOf(inputs: GenerateInputs): Record<string, unknown> {
  return Object.fromEntries(Object.entries(inputs).filter(([key]) => !INPUT_KEYS.has(key)));
}

/** One prompt, ready to be fed. */
export interface Prompt {
  /** The row as the caller gave it, padding included. */
  given: number[];
  /** What to feed. */
  feed: Int32Array;
  /** What processors see: ids fed before, then the prompt. */
  seen: number[];
}

/**
 * Checks the prompts of a call and takes their padding off.
 *
 * @throws ArgumentError for a shape that is none or an id outside the vocabulary; GenerationError for an empty prompt, or one that
 *   does not fit the state
 */
export function readPrompts(inputs: GenerateInputs, o: ResolvedOptions, vocab_size: number): Prompt[] {
  const rows = readRows(inputs.input_ids, 'input_ids');
  if (rows.length === 0) {
    throw new GenerationError('input_ids has no rows; expected at least one prompt.', { option: 'input_ids' });
  }
  const feeds = unpad(rows, inputs.attention_mask, 'attention_mask');
  const { state, history } = inputs;
  if (state && state.batch !== rows.length) {
    throw new GenerationError(
      `The state has ${state.batch} rows and input_ids ${rows.length}: there must be one prompt per row of the state.`,
      { option: 'state', got: state.batch, expected: rows.length },
    );
  }
  if (history && history.length !== rows.length) {
    throw new GenerationError(`history has ${history.length} rows and input_ids ${rows.length}.`, {
      option: 'history',
      got: history.length,
      expected: rows.length,
    });
  }
  return rows.map((given, row) => {
    const feed = feeds[row]!;
    checkIds(feed, row, vocab_size, 'input_ids');
    const fresh = !state || state.seen[row] === 0;
    if (feed.length === 0 && fresh) {
      throw new GenerationError(
        `The prompt in row ${row} is empty: there is nothing to go on from. Give at least one id, such as the one that ` +
          `begins a text (${o.bos_token_id === null ? 'bos_token_id, not set here' : `bos_token_id ${o.bos_token_id}`}).`,
        { row, bos_token_id: o.bos_token_id },
      );
    }
    return { given, feed: Int32Array.from(feed), seen: [...Array.from(history?.[row] ?? []), ...feed] };
  });
}

/** The negative prompts of guidance; each prompt's last id where none are given. */
export function readNegativePrompts(
  inputs: GenerateInputs,
  prompts: readonly Prompt[],
  vocab_size: number,
): Int32Array[] {
  if (inputs.negative_prompt_ids == null) {
    return prompts.map(({ seen }) => Int32Array.from(seen.slice(-1)));
  }
  const rows = readRows(inputs.negative_prompt_ids, 'negative_prompt_ids');
  const feeds = unpad(rows, inputs.negative_prompt_attention_mask, 'negative_prompt_attention_mask');
  if (feeds.length !== prompts.length || feeds.some((f) => f.length === 0)) {
    throw new GenerationError(
      `negative_prompt_ids must have one row of at least one id per prompt: got ${feeds.length} rows for ` +
        `${prompts.length} prompts${feeds.some((f) => f.length === 0) ? ', one of them empty' : ''}.`,
      { option: 'negative_prompt_ids', got: feeds.length, expected: prompts.length },
    );
  }
  return feeds.map((feed, row) => {
    checkIds(feed, row, vocab_size, 'negative_prompt_ids');
    return Int32Array.from(feed);
  });
}

function unpad(rows: number[][], mask: GenerateInputs['attention_mask'], name: string): number[][] {
  if (mask === null || mask === undefined) return rows;
  const masks = readRows(mask, name);
  return rows.map((row, index) => {
    const m = masks[index]!;
    if (masks.length !== rows.length || m.length !== row.length || m.some((v) => v !== 0 && v !== 1)) {
      throw new ArgumentError(
        `Row ${index} of ${name} does not fit: expected ${row.length} zeros and ones (${rows.length} rows), got ` +
          `${m ? `${m.length} values` : 'no row'} (${masks.length} rows).`,
        { option: name, row: index },
      );
    }
    return row.filter((_, at) => m[at] === 1);
  });
}
