import { ArgumentError, GenerationError } from '../base/errors.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { GenerationConfig, ResolvedOptions } from './config.js';
import type { EngineState } from './engine.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import { checkIds, type IdRow, type IdsLike, readRows } from './ids.js';
import { GENERATION_OTHERS, GENERATION_RULES, GENERATION_TABLE } from './option_rules.js';
import type { GenerationOptions } from './options.js';
import type { LogitsProcessor, PrefixAllowedTokens } from './processors.js';
import type { FinishReason, StoppingCriteria } from './stopping.js';
import type { Streamer } from './streamers.js';

/** What generate() takes beside the options of generation_config.json. */
export interface GenerateInputs extends GenerationOptions {
  /** Prompts, one row each; rows may be of different lengths, or padded on any side with an attention_mask. */
  input_ids: IdsLike;
  /**
   * 1 for text and 0 for padding, of the shape of input_ids. Default: ids that are pad_token_id are padding, unless it is an end token too or not
   * set; all else is text.
   */
  attention_mask?: IdsLike | null;
  /** Options to start from instead of the model's own. */
  generation_config?: GenerationConfig | GenerationOptions | null;
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
  /** Called, and waited for, after each segment of the prefill with ids done and in all. */
  on_progress?: (done: number, total: number) => unknown;
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

const streamer = kinds.having('a streamer: an object with put() and end(), such as a TextStreamer', 'put', 'end');
const processor = kinds.having('a logits processor', 'process');
const criterion = kinds.having('a stopping criterion', 'done');
const { orNull, listOf, anything } = kinds;

/** Rules of what generate() takes beside GenerationOptions. Ids, masks and states are judged by their readers, which say where a value is wrong. */
export const INPUT_RULES: OptionRules<Omit<GenerateInputs, keyof GenerationOptions>> = {
  input_ids: { kind: anything },
  attention_mask: { kind: anything },
  generation_config: { kind: orNull(kinds.named('a GenerationConfig, or an object of its options', kinds.object)) },
  streamer: { kind: orNull(streamer) },
  tokenizer: { kind: orNull(kinds.having('a Tokenizer', 'encode', 'decode')) },
  logits_processor: {
    kind: orNull(listOf(processor, 'logits processors, objects with process(input_ids, scores, row)')),
  },
  stopping_criteria: {
    kind: orNull(listOf(criterion, 'stopping criteria, objects with done(input_ids, scores, row)')),
  },
  prefix_allowed_tokens_fn: { kind: orNull(kinds.func) },
  negative_prompt_ids: { kind: anything },
  negative_prompt_attention_mask: { kind: anything },
  signal: { kind: orNull(kinds.abortSignal) },
  on_progress: { kind: kinds.func },
  state: { kind: orNull(kinds.having('a state: what model.prefill() or return_state gave', 'select', 'dispose')) },
  history: { kind: anything },
  return_state: { kind: orNull(kinds.boolean) },
  vocab_limit: { kind: orNull(kinds.integer({ min: 1 })) },
  first_stream: {
    kind: kinds.named(
      'the number of a stream, or a list of one per prompt',
      kinds.either(kinds.integer({ min: 0 }), listOf(kinds.integer({ min: 0 }))),
    ),
  },
};

/** What transformers and transformers.js call otherwise, or have besides. */
const INPUT_OTHERS: OtherNames = {
  ...GENERATION_OTHERS,
  inputs: 'input_ids',
  prompt: 'input_ids',
  callback_function: 'streamer',
  past_key_values: 'state',
  cache_params: 'state',
  abort_signal: 'signal',
  inputs_embeds: { why: 'generate() goes on from ids; feed embeddings with model.forward()', off: [null] },
  token_type_ids: { why: 'the model has no token types', off: [null] },
  synced_gpus: { why: 'one process generates', off: [null, false] },
  custom_generate: { why: 'no code of a repository is ever run', off: [null] },
  negative_prompt: 'negative_prompt_ids',
};

/** All that a call of generate() takes. */
export const GENERATE_TABLE = new OptionTable<GenerateInputs>(
  'generate()',
  { ...GENERATION_RULES, ...INPUT_RULES },
  { others: INPUT_OTHERS, error: GenerationError },
);

/** The options of generation among the inputs of a call, those that are off included: they may be on in a file. */
export function optionsOf(inputs: GenerateInputs): Record<string, unknown> {
  const ofGeneration = (name: string): boolean => GENERATION_TABLE.has(name) || Object.hasOwn(GENERATION_OTHERS, name);
  return Object.fromEntries(Object.entries(inputs).filter(([name]) => ofGeneration(name)));
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
  const { state, history } = inputs;
  // as transformers infers a mask (GenerationMixin._prepare_attention_mask_for_generation); what follows a state has no padding
  const inferred = (row: number[]): number[] => (state ? row : row.filter((id) => id !== o.prompt_padding));
  const feeds =
    inputs.attention_mask == null ? rows.map(inferred) : unpad(rows, inputs.attention_mask, 'attention_mask');
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
