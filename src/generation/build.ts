import type { ResolvedOptions } from './config.js';
import type { LogitsProcessor, PrefixAllowedTokens } from './processors.js';
import * as p from './processors.js';
import * as w from './warpers.js';

/** What the processors of one row need to know of it. */
export interface RowContext {
  /** Ids of the prompt, without padding. */
  prompt_length: number;
  /** Greatest length of the row, prompt included. */
  max_length: number;
  /** Number of the prompt in the batch. */
  batch_id: number;
  /** Ids from here on are padding rows of the embedding. */
  vocab_limit?: number;
  prefix_allowed_tokens_fn?: PrefixAllowedTokens;
  /** The caller's own processors. */
  custom?: readonly LogitsProcessor[];
}

/**
 * The logits processors that a set of options asks for, in the order in which transformers' generate() applies them:
 * processors, the caller's own, warpers (when sampling), normalisation. Guidance comes before all of these (see
 * guidance.ts). A processor of the caller takes the place of ours of the same class, as in transformers.
 */
export function buildProcessors(o: ResolvedOptions, row: RowContext): LogitsProcessor[] {
  const list: LogitsProcessor[] = [];
  if (row.vocab_limit !== undefined) list.push(new p.VocabularyLimitLogitsProcessor(row.vocab_limit));
  const eos = o.eos_token_id;
  if (o.sequence_bias) list.push(new p.SequenceBiasLogitsProcessor(o.sequence_bias));
  if (o.repetition_penalty !== 1) list.push(new p.RepetitionPenaltyLogitsProcessor(o.repetition_penalty));
  if (o.no_repeat_ngram_size > 0) list.push(new p.NoRepeatNGramLogitsProcessor(o.no_repeat_ngram_size));
  if (o.bad_words_ids) list.push(new p.NoBadWordsLogitsProcessor(o.bad_words_ids, eos));
  if (o.min_length > 0 && eos.length > 0) list.push(new p.MinLengthLogitsProcessor(o.min_length, eos));
  if (o.min_new_tokens > 0 && eos.length > 0) {
    list.push(new p.MinNewTokensLengthLogitsProcessor(row.prompt_length, o.min_new_tokens, eos));
  }
  if (row.prefix_allowed_tokens_fn) {
    list.push(new p.PrefixConstrainedLogitsProcessor(row.prefix_allowed_tokens_fn, row.batch_id));
  }
  if (o.forced_bos_token_id !== null) list.push(new p.ForcedBOSTokenLogitsProcessor(o.forced_bos_token_id));
  if (o.forced_eos_token_id) list.push(new p.ForcedEOSTokenLogitsProcessor(row.max_length, o.forced_eos_token_id));
  if (o.remove_invalid_values) list.push(new p.InfNanRemoveLogitsProcessor());
  if (o.exponential_decay_length_penalty) {
    list.push(new p.ExponentialDecayLengthPenalty(o.exponential_decay_length_penalty, eos, row.prompt_length));
  }
  if (o.suppress_tokens.length > 0) list.push(new p.SuppressTokensLogitsProcessor(o.suppress_tokens));
  if (o.begin_suppress_tokens.length > 0) {
    // After a prompt of one id, a forced first id comes before the text begins.
    const begin = row.prompt_length > 1 || o.forced_bos_token_id === null ? row.prompt_length : row.prompt_length + 1;
    list.push(new p.SuppressTokensAtBeginLogitsProcessor(o.begin_suppress_tokens, begin));
  }
  const custom = row.custom ?? [];
  const merged = list.filter((ours) => !custom.some((theirs) => theirs.constructor === ours.constructor));
  merged.push(...custom);
  // With beams, at least one id that does not end the row must be left to go on with.
  if (o.do_sample) merged.push(...buildWarpers(o, o.num_beams > 1 ? Math.max(2, eos.length + 1) : 1));
  if (o.renormalize_logits) merged.push(new p.LogitNormalization());
  // Once more, for processors that bring removed ids back.
  if (row.vocab_limit !== undefined && o.remove_invalid_values) {
    merged.push(new p.VocabularyLimitLogitsProcessor(row.vocab_limit));
  }
  return merged;
}

type Warping = Pick<
  ResolvedOptions,
  'temperature' | 'top_k' | 'top_p' | 'min_p' | 'typical_p' | 'epsilon_cutoff' | 'eta_cutoff'
> & { readonly top_h?: ResolvedOptions['top_h'] };

/** What sampling leaves of the scores, in the order in which transformers applies it. @param keep ids that stay in any case */
export function buildWarpers(o: Readonly<Warping>, keep = 1): LogitsProcessor[] {
  const list: LogitsProcessor[] = [];
  if (o.temperature !== 1) list.push(new w.TemperatureLogitsWarper(o.temperature));
  if (o.top_h != null) list.push(new w.TopHLogitsWarper(o.top_h));
  if (o.top_k !== 0) list.push(new w.TopKLogitsWarper(o.top_k, keep));
  if (o.top_p < 1) list.push(new w.TopPLogitsWarper(o.top_p, keep));
  if (o.min_p !== null) list.push(new w.MinPLogitsWarper(o.min_p, keep));
  if (o.typical_p < 1) list.push(new w.TypicalLogitsWarper(o.typical_p, keep));
  if (o.epsilon_cutoff > 0) list.push(new w.EpsilonLogitsWarper(o.epsilon_cutoff, keep));
  if (o.eta_cutoff > 0) list.push(new w.EtaLogitsWarper(o.eta_cutoff, keep));
  return list;
}
