/** The options of generate() that generation_config.json may hold. Their rules are in option_rules.ts. */

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
  /** true, as transformers has it: a recurrent state is always carried along. */
  use_cache?: boolean | null;

  /** Divides scores. Above 0, default 1. Below 1 is more careful, above 1 bolder. */
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
