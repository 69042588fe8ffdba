import path from 'node:path';
import { GenerationError } from '../base/errors.js';
import { parseJson, readTextFileIfThere } from '../base/text_files.js';
import { writeFileAtomic } from '../base/whole_files.js';
import { checkFileOption, GENERATION_TABLE, OPTION_NAMES } from './option_rules.js';
import type { GenerationOptions } from './options.js';

/** Options with every default filled in; lists where transformers takes a value or a list. */
export interface ResolvedOptions {
  max_length: number | null;
  max_new_tokens: number | null;
  min_length: number;
  min_new_tokens: number;
  early_stopping: boolean | 'never';
  max_time: number | null;
  stop_strings: readonly string[];
  do_sample: boolean;
  num_beams: number;
  num_return_sequences: number;
  seed: number | null;
  temperature: number;
  top_k: number;
  top_p: number;
  min_p: number | null;
  top_h: number | null;
  typical_p: number;
  epsilon_cutoff: number;
  eta_cutoff: number;
  repetition_penalty: number;
  length_penalty: number;
  no_repeat_ngram_size: number;
  bad_words_ids: readonly (readonly number[])[] | null;
  sequence_bias: readonly (readonly [readonly number[], number])[] | null;
  renormalize_logits: boolean;
  forced_bos_token_id: number | null;
  forced_eos_token_id: readonly number[] | null;
  remove_invalid_values: boolean;
  exponential_decay_length_penalty: readonly [number, number] | null;
  suppress_tokens: readonly number[];
  begin_suppress_tokens: readonly number[];
  guidance_scale: number | null;
  return_dict_in_generate: boolean;
  output_scores: boolean;
  output_logits: boolean;
  pad_token_id: number;
  /** The id that is padding in prompts without a mask: pad_token_id where it is set and ends no row. */
  prompt_padding: number | null;
  bos_token_id: number | null;
  eos_token_id: readonly number[];
  prefill_chunk_size: number | null;
}

/* eslint-disable @typescript-eslint/no-unsafe-declaration-merging, @typescript-eslint/no-empty-object-type -- the options are plain, mutable fields */
/**
 * How a model generates: the options of generation_config.json, as plain fields that may be changed.
 *
 * @example
 * model.generation_config.max_new_tokens = 100;
 * const config = new GenerationConfig({ do_sample: true, temperature: 0.8 });
 */
export interface GenerationConfig extends GenerationOptions {}
export class GenerationConfig {
  /** Keys of the file that are no options here; written back as they were. */
  readonly #rest: Record<string, unknown> = {};

  /**
   * @param options options by name
   * @throws GenerationError for an unknown option or a wrong value
   */
  constructor(options: GenerationOptions = {}) {
    GENERATION_TABLE.check(options);
    for (const [name, value] of Object.entries(options)) if (value !== undefined) this.#keep(name, value);
  }

  /**
   * Reads DIR/generation_config.json. Where there is none, the ids of special tokens come from the model's config.
   *
   * @param modelConfig parsed config.json
   * @throws GenerationError when the file is malformed or an option has a wrong value
   */
  static async from_pretrained(dir: string, modelConfig: Record<string, unknown> = {}): Promise<GenerationConfig> {
    const file = path.join(dir, 'generation_config.json');
    const text = await readTextFileIfThere(file, GenerationError);
    if (text === null) return GenerationConfig.from_model_config(modelConfig);
    const values = parseJson(text, file, GenerationError);
    if (typeof values !== 'object' || values === null || Array.isArray(values)) {
      throw new GenerationError(`${file} holds ${text.slice(0, 40)}; expected an object.`, { file });
    }
    const config = new GenerationConfig();
    config.#read(values);
    return config;
  }

  /** The special tokens' ids of a model's config.json, and defaults for the rest. */
  static from_model_config(modelConfig: Record<string, unknown>): GenerationConfig {
    const config = new GenerationConfig();
    for (const key of ['bos_token_id', 'eos_token_id', 'pad_token_id']) {
      if (modelConfig[key] !== undefined) config.#read({ [key]: modelConfig[key] });
    }
    return config;
  }

  #keep(name: string, value: unknown): void {
    if (GENERATION_TABLE.has(name)) Object.assign(this, { [name]: value });
    else this.#rest[name] = value;
  }

  /** What a file holds that is no option is judged when it is used: a model must not fail to load because of it. */
  #read(values: object): void {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) continue;
      if (GENERATION_TABLE.has(name)) checkFileOption(name, value);
      this.#keep(name, value);
    }
  }

  /**
   * This config with that of a call over it, and the options of the call over both; checked and with defaults. Of each
   * of them `undefined` leaves what is below, `null` turns an option off.
   *
   * @param call options by name
   * @param over a config given with the call; plain options are taken as one
   * @throws GenerationError for an unknown or unsupported option or a wrong value, by name
   */
  resolve(call: Record<string, unknown> = {}, over?: GenerationConfig | GenerationOptions | null): ResolvedOptions {
    const upper = over == null || over instanceof GenerationConfig ? over : new GenerationConfig(over);
    const asked = { ...set(upper ?? {}), ...set(call) };
    const given = { ...set(this), ...asked };
    for (const [key, value] of Object.entries({ ...this.#rest, ...(upper ? upper.#rest : {}) })) {
      if (given[key] === undefined) checkFileOption(key, value);
    }
    // Fields too: they may have been changed since, or added.
    GENERATION_TABLE.check(given);
    // A length given in the call wins over the other kind of length in the model's config.
    if (asked.max_length != null && asked.max_new_tokens === undefined) given.max_new_tokens = null;
    const options = withDefaults(given);
    checkTogether(options);
    return options;
  }

  /** The options that are set, and what else the file held: what generation_config.json would hold. */
  to_dict(): Record<string, unknown> {
    return this.toJSON();
  }

  /** As to_dict(); what JSON.stringify writes. */
  toJSON(): Record<string, unknown> {
    const out: Record<string, unknown> = { ...this.#rest };
    for (const name of OPTION_NAMES) if (this[name] !== undefined) out[name] = this[name];
    return out;
  }

  /**
   * Writes DIR/generation_config.json.
   *
   * @throws SaveError when it cannot be written; a file that was there before is then still whole
   */
  async save_pretrained(dir: string): Promise<void> {
    await writeFileAtomic(path.join(dir, 'generation_config.json'), JSON.stringify(this.toJSON(), null, 2) + '\n');
  }
}
/* eslint-enable @typescript-eslint/no-unsafe-declaration-merging, @typescript-eslint/no-empty-object-type */

/** What is set, be it to null. */
const set = (values: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

const list = <T>(value: T | readonly T[] | null | undefined): readonly T[] =>
  value === null || value === undefined ? [] : Array.isArray(value) ? (value as readonly T[]) : [value as T];

/** transformers' GenerationConfig._get_default_generation_params. */
function withDefaults(o: GenerationOptions): ResolvedOptions {
  const eos = list(o.eos_token_id);
  return {
    max_length: o.max_length ?? null,
    max_new_tokens: o.max_new_tokens ?? null,
    min_length: o.min_length ?? 0,
    min_new_tokens: o.min_new_tokens ?? 0,
    early_stopping: o.early_stopping ?? false,
    max_time: o.max_time ?? null,
    stop_strings: list(o.stop_strings),
    do_sample: o.do_sample ?? false,
    num_beams: o.num_beams ?? 1,
    num_return_sequences: o.num_return_sequences ?? 1,
    seed: o.seed ?? null,
    temperature: o.temperature ?? 1,
    top_k: o.top_k === null ? 0 : (o.top_k ?? 50),
    top_p: o.top_p ?? 1,
    min_p: o.min_p ?? null,
    top_h: o.top_h ?? null,
    typical_p: o.typical_p ?? 1,
    epsilon_cutoff: o.epsilon_cutoff ?? 0,
    eta_cutoff: o.eta_cutoff ?? 0,
    repetition_penalty: o.repetition_penalty ?? 1,
    length_penalty: o.length_penalty ?? 1,
    no_repeat_ngram_size: o.no_repeat_ngram_size ?? 0,
    bad_words_ids: o.bad_words_ids ?? null,
    sequence_bias: o.sequence_bias ?? null,
    renormalize_logits: o.renormalize_logits ?? false,
    forced_bos_token_id: o.forced_bos_token_id ?? null,
    forced_eos_token_id: o.forced_eos_token_id == null ? null : list(o.forced_eos_token_id),
    remove_invalid_values: o.remove_invalid_values ?? false,
    exponential_decay_length_penalty: o.exponential_decay_length_penalty ?? null,
    suppress_tokens: o.suppress_tokens ?? [],
    begin_suppress_tokens: o.begin_suppress_tokens ?? [],
    guidance_scale: o.guidance_scale === 1 ? null : (o.guidance_scale ?? null),
    return_dict_in_generate: o.return_dict_in_generate ?? false,
    output_scores: o.output_scores ?? false,
    output_logits: o.output_logits ?? false,
    pad_token_id: o.pad_token_id ?? eos[0] ?? 0,
    prompt_padding: o.pad_token_id == null || eos.includes(o.pad_token_id) ? null : o.pad_token_id,
    bos_token_id: o.bos_token_id ?? null,
    eos_token_id: eos,
    prefill_chunk_size: o.prefill_chunk_size ?? null,
  };
}

function checkTogether(o: ResolvedOptions): void {
  if (o.num_return_sequences > 1 && o.num_beams === 1 && !o.do_sample) {
    throw new GenerationError(
      `num_return_sequences: ${o.num_return_sequences} needs do_sample: true or num_beams: greedy decoding gives the ` +
        `same row each time.`,
      { option: 'num_return_sequences', got: o.num_return_sequences },
    );
  }
  if (o.num_beams > 1 && o.num_return_sequences > o.num_beams) {
    throw new GenerationError(
      `num_return_sequences: ${o.num_return_sequences} is more than num_beams: ${o.num_beams}; beam search keeps ` +
        `num_beams rows.`,
      { option: 'num_return_sequences', got: o.num_return_sequences, expected: o.num_beams },
    );
  }
  if (o.exponential_decay_length_penalty && o.eos_token_id.length === 0) {
    throw new GenerationError('exponential_decay_length_penalty makes the end likelier and needs eos_token_id.', {
      option: 'exponential_decay_length_penalty',
    });
  }
}
