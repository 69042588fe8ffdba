import { GenerationError } from '../base/errors.js';

/**
 * The options of generate() that generation_config.json may hold, with transformers' names and meanings. In a call,
 * `undefined` leaves the model's own setting, `null` turns an option off (`eos_token_id: null` never ends early).
 */
export interface GenerationOptions {
  /** Length of a whole row, prompt included, in ids. Default: 20 new ones, where max_new_tokens is not set either. */
  max_length?: number | null;
  /** Most new ids; wins over max_length. */
  max_new_tokens?: number | null;
  /** The end is forbidden while a row, prompt included, is shorter. Default 0. */
  min_length?: number | null;
  /** The end is forbidden while there are fewer new ids; acts beside min_length. */
  min_new_tokens?: number | null;
  /** Beam search stops: true, at num_beams finished; false (default), when nothing better is likely; 'never', when nothing better is possible. */
  early_stopping?: boolean | 'never' | null;
  /** Seconds after which no further token is begun. */
  max_time?: number | null;
  /** Texts that end a row once they are written; needs a tokenizer. The text that completes one stays in the output. */
  stop_strings?: string | readonly string[] | null;

  /** Draws tokens by their probabilities rather than taking the best. Default false. */
  do_sample?: boolean | null;
  /** Beams; 1 (default) is no beam search. */
  num_beams?: number | null;
  /** Rows for each prompt. Default 1. */
  num_return_sequences?: number | null;
  /** Seed of the random numbers when sampling. Default: a new one each time. */
  seed?: number | null;
  /** Accepted for compatibility: a recurrent state is always carried along. */
  use_cache?: boolean | null;

  /** Divides scores. Above 0, default 1. Below 1 is bolder. */
  temperature?: number | null;
  /** Samples from the k best only. 0 is off, default 50. */
  top_k?: number | null;
  /** Samples from the best with this probability together. In [0, 1], default 1 (off). */
  top_p?: number | null;
  /** Samples from those at least this fraction as probable as the best. In [0, 1]. */
  min_p?: number | null;
  /** Share of the entropy to keep. In (0, 1]. */
  top_h?: number | null;
  /** Locally typical sampling's mass. In (0, 1], default 1 (off). */
  typical_p?: number | null;
  /** Least probability. In [0, 1), default 0 (off). */
  epsilon_cutoff?: number | null;
  /** Eta sampling's epsilon. In [0, 1), default 0 (off). */
  eta_cutoff?: number | null;

  /** Above 0, default 1 (off). Above 1 discourages ids that occurred. */
  repetition_penalty?: number | null;
  /** Beam search divides a sum of log-probabilities by length to this power. Default 1. */
  length_penalty?: number | null;
  /** Sequences of this many ids occur once only. 0 (default) is off. */
  no_repeat_ngram_size?: number | null;
  /** Sequences of ids that must not be written. */
  bad_words_ids?: readonly (readonly number[])[] | null;
  /** Biases for sequences of ids: [[ids, bias], …]. */
  sequence_bias?: readonly (readonly [readonly number[], number])[] | null;
  /** Ends with log-probabilities again after all other changes. Default false. */
  renormalize_logits?: boolean | null;
  /** The id after a prompt of one id. */
  forced_bos_token_id?: number | null;
  /** The last id when a row reaches its greatest length. */
  forced_eos_token_id?: number | readonly number[] | null;
  /** Replaces NaN and infinite scores. Default false. */
  remove_invalid_values?: boolean | null;
  /** [start, factor]: makes the end likelier from `start` new ids on. */
  exponential_decay_length_penalty?: readonly [number, number] | null;
  /** Ids never chosen. */
  suppress_tokens?: readonly number[] | null;
  /** Ids not chosen first. */
  begin_suppress_tokens?: readonly number[] | null;
  /** Classifier-free guidance: how much further than the unconditional scores to go. 1 is off. */
  guidance_scale?: number | null;

  /** Returns a GenerateOutput rather than rows of ids. Default false. */
  return_dict_in_generate?: boolean | null;
  /** Keeps the processed scores of each step (in a GenerateOutput). Default false. */
  output_scores?: boolean | null;
  /** Keeps the raw logits of each step (in a GenerateOutput). Default false. */
  output_logits?: boolean | null;

  /** Fills rows that ended. Default: the first eos_token_id, else 0. */
  pad_token_id?: number | null;
  /** First id of a text. */
  bos_token_id?: number | null;
  /** Ids that end a row. */
  eos_token_id?: number | readonly number[] | null;

  /** Feeds prompts in chunks of at most this many ids. Default: the engine's own. */
  prefill_chunk_size?: number | null;
}

type Check = (value: unknown) => boolean;
interface Rule {
  /** What is expected, for the message. */
  readonly expected: string;
  readonly ok: Check;
}

const int =
  (least: number): Check =>
  (v) =>
    Number.isInteger(v) && (v as number) >= least;
const isNumber: Check = (v) => typeof v === 'number' && Number.isFinite(v);
const isList =
  (item: Check): Check =>
  (v) =>
    Array.isArray(v) && v.every(item);
const both =
  (...checks: Check[]): Check =>
  (v) =>
    checks.every((c) => c(v));
const either =
  (...checks: Check[]): Check =>
  (v) =>
    checks.some((c) => c(v));
const filled: Check = (v) => (v as unknown[]).length > 0;

const boolean: Rule = { expected: 'true or false', ok: (v) => typeof v === 'boolean' };
const atLeast = (least: number): Rule => ({ expected: `an integer of ${least} or more`, ok: int(least) });
const number = (expected: string, ok: (v: number) => boolean): Rule => ({
  expected,
  ok: (v) => typeof v === 'number' && ok(v),
});
const id = atLeast(0);
const ids: Rule = { expected: 'a list of ids', ok: isList(int(0)) };
const idOrIds: Rule = { expected: 'an id or a list of ids', ok: either(int(0), both(isList(int(0)), filled)) };
const isIdSequence = both(isList(int(0)), filled);
const isText: Check = (v) => typeof v === 'string' && v !== '';

const RULES: Record<keyof GenerationOptions, Rule> = {
  max_length: atLeast(1),
  max_new_tokens: atLeast(1),
  min_length: atLeast(0),
  min_new_tokens: atLeast(0),
  early_stopping: { expected: "true, false or 'never'", ok: (v) => typeof v === 'boolean' || v === 'never' },
  max_time: number('a number of seconds above 0', (v) => v > 0),
  stop_strings: { expected: 'a text or a list of texts', ok: either(isText, both(isList(isText), filled)) },
  do_sample: boolean,
  num_beams: atLeast(1),
  num_return_sequences: atLeast(1),
  seed: { expected: 'an integer of 0 or more', ok: (v) => Number.isSafeInteger(v) && (v as number) >= 0 },
  use_cache: boolean,
  temperature: number('a number above 0 (for greedy decoding use do_sample: false)', (v) => v > 0 && v < Infinity),
  top_k: atLeast(0),
  top_p: number('a number from 0 to 1', (v) => v >= 0 && v <= 1),
  min_p: number('a number from 0 to 1', (v) => v >= 0 && v <= 1),
  top_h: number('a number above 0 and at most 1', (v) => v > 0 && v <= 1),
  typical_p: number('a number above 0 and at most 1', (v) => v > 0 && v <= 1),
  epsilon_cutoff: number('a number of 0 or more and below 1', (v) => v >= 0 && v < 1),
  eta_cutoff: number('a number of 0 or more and below 1', (v) => v >= 0 && v < 1),
  repetition_penalty: number('a number above 0', (v) => v > 0 && v < Infinity),
  length_penalty: { expected: 'a number', ok: isNumber },
  no_repeat_ngram_size: atLeast(0),
  bad_words_ids: { expected: 'a list of lists of ids', ok: both(isList(isIdSequence), filled) },
  sequence_bias: {
    expected: 'a list of [ids, bias]',
    ok: both(
      isList((v) => Array.isArray(v) && v.length === 2 && isIdSequence(v[0]) && isNumber(v[1])),
      filled,
    ),
  },
  renormalize_logits: boolean,
  forced_bos_token_id: id,
  forced_eos_token_id: idOrIds,
  remove_invalid_values: boolean,
  exponential_decay_length_penalty: {
    expected: '[start, factor]',
    ok: (v) => Array.isArray(v) && v.length === 2 && int(0)(v[0]) && isNumber(v[1]),
  },
  suppress_tokens: ids,
  begin_suppress_tokens: ids,
  guidance_scale: { expected: 'a number', ok: isNumber },
  return_dict_in_generate: boolean,
  output_scores: boolean,
  output_logits: boolean,
  pad_token_id: id,
  bos_token_id: id,
  eos_token_id: idOrIds,
  prefill_chunk_size: atLeast(1),
};

/** Why an option of transformers is not offered, and the values that mean "off" and so change nothing. */
const UNSUPPORTED: Record<string, { why: string; off?: readonly unknown[] }> = {
  assistant_model: { why: 'assisted decoding would have to take back tokens, and a recurrent state cannot be cropped' },
  prompt_lookup_num_tokens: {
    why: 'assisted decoding would have to take back tokens, and a recurrent state cannot be cropped',
  },
  assistant_early_exit: { why: 'assisted decoding is not possible with a recurrent state' },
  use_mtp: { why: 'the model has no heads that predict several tokens' },
  cache_implementation: { why: 'a Mamba-2 model has a state of fixed size and no key-value cache to choose' },
  cache_config: { why: 'a Mamba-2 model has a state of fixed size and no key-value cache to configure' },
  penalty_alpha: { why: 'contrastive search is not implemented; use sampling or beam search', off: [0] },
  dola_layers: { why: 'DoLa decoding is not implemented' },
  num_beam_groups: { why: 'group beam search is not implemented; use num_beams', off: [1] },
  diversity_penalty: { why: 'group beam search is not implemented; use num_beams', off: [0] },
  constraints: { why: 'constrained beam search is not implemented; use prefix_allowed_tokens_fn' },
  force_words_ids: { why: 'constrained beam search is not implemented; use prefix_allowed_tokens_fn' },
  encoder_repetition_penalty: { why: 'the model has no encoder; use repetition_penalty', off: [1] },
  encoder_no_repeat_ngram_size: { why: 'the model has no encoder; use no_repeat_ngram_size', off: [0] },
  decoder_start_token_id: { why: 'the model has no encoder' },
  token_healing: { why: 'token healing is not implemented' },
  watermarking_config: { why: 'watermarking is not implemented; it can be given as a logits_processor' },
  output_attentions: { why: 'the model has no attention' },
  output_hidden_states: { why: 'hidden states come from the forward pass: call model.forward()' },
  low_memory: { why: 'beam search always runs its beams as one batch' },
};

/** Keys of generation_config.json that say nothing about how to generate. */
const SILENT = new Set([
  'transformers_version',
  '_from_model_config',
  '_commit_hash',
  'compile_config',
  'disable_compile',
  'continuous_batching_config',
  'max_cache_len',
  'is_assistant',
  'num_assistant_tokens',
  'num_assistant_tokens_schedule',
  'assistant_confidence_threshold',
  'max_matching_ngram_size',
  'assistant_lookbehind',
  'target_lookbehind',
  'assistant_ensemble_weight',
  'speculation_type',
]);

/** Names of all options. */
export const OPTION_NAMES = Object.keys(RULES) as (keyof GenerationOptions)[];

/** Whether a key is an option of generate(). */
export function isOption(key: string): key is keyof GenerationOptions {
  return Object.hasOwn(RULES, key);
}

/**
 * Checks one option, known or not.
 *
 * @param origin 'call' refuses keys that mean nothing here; 'file' lets them pass, as files hold notes of their writers
 * @throws GenerationError naming the option
 */
export function checkOption(key: string, value: unknown, origin: 'call' | 'file'): void {
  if (value === null || value === undefined) return;
  if (isOption(key)) {
    if (RULES[key].ok(value)) return;
    throw new GenerationError(`${key} is ${show(value)}; expected ${RULES[key].expected}.`, {
      option: key,
      got: value,
      expected: RULES[key].expected,
    });
  }
  const unsupported = UNSUPPORTED[key];
  if (unsupported) {
    if (value === false || unsupported.off?.includes(value)) return;
    const where = origin === 'file' ? 'generation_config.json sets' : 'generate() got';
    throw new GenerationError(
      `${where} ${key}: ${show(value)}, which is not supported: ${unsupported.why}.` +
        (origin === 'file' ? ` Take it out of the file, or pass ${key}: null.` : ''),
      { option: key, got: value },
    );
  }
  if (origin === 'file' || SILENT.has(key)) return;
  const near = nearest(key);
  throw new GenerationError(`generate() has no option ${key}.${near ? ` Did you mean ${near}?` : ''}`, {
    option: key,
    got: value,
  });
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 60);
}

function nearest(key: string): string | undefined {
  const plain = (s: string): string => s.toLowerCase().replaceAll(/[^a-z]/g, '');
  return (
    OPTION_NAMES.find((name) => plain(name) === plain(key)) ??
    OPTION_NAMES.find((name) => plain(key).length >= 4 && plain(name).includes(plain(key)))
  );
}
