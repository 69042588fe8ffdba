/** The rules of generate()'s options, and what is said of those of transformers, vLLM and transformers.js that are called otherwise. */
import { GenerationError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherName, type OtherNames } from '../base/options.js';
import { quote } from '../base/quote.js';
import type { GenerationOptions } from './options.js';

const { integer, number, boolean, orNull, either, listOf, named } = kinds;

const flag = { kind: orNull(boolean) };
const atLeast = (min: number) => ({ kind: orNull(integer({ min })) });
const share = { kind: orNull(number({ min: 0, max: 1 })) };
const part = { kind: orNull(number({ above: 0, max: 1 })) };
const cutoff = { kind: orNull(number({ min: 0, below: 1 })) };
const id = integer({ min: 0 });
const sequence = listOf(id, 'ids', 1);
const idOrIds = { kind: orNull(named('an id or a list of ids', either(id, sequence))) };
const ids = { kind: orNull(listOf(id, 'ids')) };

const isPair = (v: unknown, first: kinds.Kind): boolean =>
  Array.isArray(v) && v.length === 2 && first.ok(v[0]) && number().ok(v[1]);

/** Rules of GenerationOptions; null turns an option off. */
export const GENERATION_RULES: OptionRules<GenerationOptions> = {
  max_length: atLeast(1),
  max_new_tokens: atLeast(1),
  min_length: atLeast(0),
  min_new_tokens: atLeast(0),
  early_stopping: { kind: orNull(kinds.oneOf(true, false, 'never')) },
  max_time: { kind: orNull(named('a number of seconds above 0', (v) => typeof v === 'number' && v > 0)) },
  stop_strings: {
    kind: orNull(named('a text or a list of texts', either(kinds.text, listOf(kinds.text, 'texts', 1)))),
  },
  do_sample: flag,
  num_beams: atLeast(1),
  num_return_sequences: atLeast(1),
  seed: atLeast(0),
  use_cache: flag,
  temperature: { kind: orNull(number({ above: 0 }, ' (for greedy decoding use do_sample: false)')) },
  top_k: atLeast(0),
  top_p: share,
  min_p: share,
  top_h: part,
  typical_p: part,
  epsilon_cutoff: cutoff,
  eta_cutoff: cutoff,
  repetition_penalty: { kind: orNull(number({ above: 0 })) },
  length_penalty: { kind: orNull(number()) },
  no_repeat_ngram_size: atLeast(0),
  bad_words_ids: { kind: orNull(listOf(sequence, 'lists of ids', 1)) },
  sequence_bias: {
    kind: orNull(
      listOf(
        named('[ids, bias]', (v) => isPair(v, sequence)),
        '[ids, bias]',
        1,
      ),
    ),
  },
  renormalize_logits: flag,
  forced_bos_token_id: { kind: orNull(id) },
  forced_eos_token_id: idOrIds,
  remove_invalid_values: flag,
  exponential_decay_length_penalty: { kind: orNull(named('[start, factor]', (v) => isPair(v, id))) },
  suppress_tokens: ids,
  begin_suppress_tokens: ids,
  guidance_scale: { kind: orNull(number()) },
  return_dict_in_generate: flag,
  output_scores: flag,
  output_logits: flag,
  pad_token_id: { kind: orNull(id) },
  bos_token_id: { kind: orNull(id) },
  eos_token_id: idOrIds,
  prefill_chunk_size: atLeast(1),
};

const unsupported = (why: string, ...off: readonly unknown[]): OtherName => ({ why, off: [null, false, ...off] });

/** Options of transformers that a file may have and that would change the text. */
const UNSUPPORTED: OtherNames = {
  assistant_model: unsupported(
    'assisted decoding would have to take back tokens, and a recurrent state cannot be cropped',
  ),
  prompt_lookup_num_tokens: unsupported(
    'assisted decoding would have to take back tokens, and a recurrent state cannot be cropped',
  ),
  assistant_early_exit: unsupported('assisted decoding is not possible with a recurrent state'),
  use_mtp: unsupported('the model has no heads that predict several tokens'),
  cache_implementation: unsupported('a Mamba-2 model has a state of fixed size and no key-value cache to choose'),
  cache_config: unsupported('a Mamba-2 model has a state of fixed size and no key-value cache to configure'),
  penalty_alpha: unsupported('contrastive search is not implemented; use sampling or beam search', 0),
  dola_layers: unsupported('DoLa decoding is not implemented'),
  num_beam_groups: unsupported('group beam search is not implemented; use num_beams', 1),
  diversity_penalty: unsupported('group beam search is not implemented; use num_beams', 0),
  constraints: unsupported('constrained beam search is not implemented; use prefix_allowed_tokens_fn'),
  force_words_ids: unsupported('constrained beam search is not implemented; use prefix_allowed_tokens_fn'),
  encoder_repetition_penalty: unsupported('the model has no encoder; use repetition_penalty', 1),
  encoder_no_repeat_ngram_size: unsupported('the model has no encoder; use no_repeat_ngram_size', 0),
  decoder_start_token_id: unsupported('the model has no encoder'),
  token_healing: unsupported('token healing is not implemented'),
  watermarking_config: unsupported('watermarking is not implemented; it can be given as a logits_processor'),
  output_attentions: unsupported('the model has no attention'),
  output_hidden_states: unsupported('hidden states come from the forward pass: call model.forward()'),
  low_memory: unsupported('beam search always runs its beams as one batch'),
};

/** Keys of generation_config.json that say nothing about how to generate. */
const OF_FILES: OtherNames = Object.fromEntries(
  [
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
  ].map((name) => [name, unsupported('it has no meaning here')]),
);

/** Names of the same options elsewhere. */
const RENAMED: OtherNames = {
  max_tokens: 'max_new_tokens',
  max_completion_tokens: 'max_new_tokens',
  n_predict: 'max_new_tokens',
  min_tokens: 'min_new_tokens',
  stop: 'stop_strings',
  stop_sequences: 'stop_strings',
  stop_token_ids: 'eos_token_id',
  n: 'num_return_sequences',
  beam_size: 'num_beams',
  best_of: 'num_beams',
  sample: 'do_sample',
  top_n: 'top_k',
  typical: 'typical_p',
  repeat_penalty: 'repetition_penalty',
  random_state: 'seed',
  return_dict: 'return_dict_in_generate',
};

/** What is said of names that are no options of generate(), here and in GenerationConfig. */
export const GENERATION_OTHERS: OtherNames = { ...UNSUPPORTED, ...OF_FILES, ...RENAMED };

/** Options of a GenerationConfig. */
export const GENERATION_TABLE = new OptionTable<GenerationOptions>('new GenerationConfig()', GENERATION_RULES, {
  others: GENERATION_OTHERS,
  error: GenerationError,
});

/** Names of all options. */
export const OPTION_NAMES = Object.keys(GENERATION_RULES) as (keyof GenerationOptions)[];

/**
 * Checks what generation_config.json holds. What is no option passes, as files hold notes of their writers; what is an option of
 * transformers that would change the text does not.
 * @throws GenerationError naming the option
 */
export function checkFileOption(name: string, value: unknown): void {
  if (value === null || value === undefined) return;
  if (GENERATION_TABLE.has(name)) return GENERATION_TABLE.checkValue(name, value);
  const other = Object.hasOwn(UNSUPPORTED, name) ? UNSUPPORTED[name] : undefined;
  if (typeof other !== 'object' || other.off?.includes(value)) return;
  throw new GenerationError(
    `generation_config.json sets ${name}: ${quote(value)}, which is not supported: ${other.why}. Take it out of the file, or pass ${name}: null.`,
    { option: name, got: value },
  );
}
