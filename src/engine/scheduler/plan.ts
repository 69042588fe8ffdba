/** A request, once it is checked: how its rows choose, and whether the rows of a program can. */
import { GenerationError } from '../../base/errors.js';
import { omit } from '../../base/omit.js';
import { quote } from '../../base/quote.js';
import type { GenerationConfig, ResolvedOptions } from '../../generation/config.js';
import type { RowSampling } from '../../generation/decoding_rows.js';
import { checkEffects } from '../../generation/effects.js';
import { checkIds } from '../../generation/ids.js';
import { optionsOf } from '../../generation/inputs.js';
import { criteriaOf, limitOf } from '../../generation/run.js';
import type { StoppingCriteria } from '../../generation/stopping.js';
import type { Tokenizer } from '../../tokenizers/index.js';
import type { ScheduledRequest } from './types.js';

/** What a scheduler knows that requests are checked by. */
export interface Known {
  readonly config: GenerationConfig;
  readonly vocab_size: number;
  /** Ids from here on pad the vocabulary. */
  readonly vocab_limit: number;
  readonly tokenizer: Tokenizer | null;
  /** Most end tokens of a row. */
  readonly most_eos: number;
}

export class Plan {
  readonly options: ResolvedOptions;
  readonly input_ids: Int32Array;
  /** Whether it runs beside the rows: they cannot choose so. */
  readonly beside: boolean;
  /** Biases of ids whatever the position; what only the first tokens have comes on top. */
  private readonly bias: ReadonlyMap<number, number>;
  private readonly biases = new Map<string, ReadonlyMap<number, number>>();

  /** @param request whose names and values were checked @throws GenerationError or ArgumentError for what does not go together, and for ids */
  constructor(
    readonly request: ScheduledRequest,
    private readonly known: Known,
  ) {
    const { input_ids, state, tokenizer = known.tokenizer } = request;
    // one of the model's own configuration counts, too; what generate() returns is no matter here
    const asked = optionsOf(omit({ ...request, input_ids: [] }, 'state'));
    const o = (this.options = known.config.resolve(asked));
    checkEffects(asked, { do_sample: o.do_sample, num_beams: o.num_beams, whole: true });
    const { vocab_size } = known;
    if (input_ids === undefined)
      throw new GenerationError('submit() needs input_ids: the ids of one prompt.', { option: 'input_ids' });
    checkIds(input_ids, 0, vocab_size, 'input_ids');
    this.input_ids = Int32Array.from(input_ids);
    if (input_ids.length === 0 && state == null) {
      throw new GenerationError(
        'input_ids is empty: there is nothing to go on from. Give at least one id, or a state.',
        {
          option: 'input_ids',
        },
      );
    }
    if (o.stop_strings.length > 0 && !tokenizer)
      throw new GenerationError('stop_strings needs the tokenizer: pass it to the scheduler, or with the request.', {
        option: 'stop_strings',
      });
    for (const name of ['eos_token_id', 'suppress_tokens', 'begin_suppress_tokens', 'forced_eos_token_id'] as const)
      this.checkVocabulary(name, o[name] ?? []);
    this.checkVocabulary(
      'logit_bias',
      (request.logit_bias ?? []).map(([id]) => id),
    );
    if (o.num_beams > 1)
      for (const name of ['logprobs', 'keep_state', 'constraint', 'presence_penalty', 'frequency_penalty'] as const)
        this.refuseBeams(name);
    const wrong = request.marks?.find((mark) => mark > input_ids.length);
    if (wrong !== undefined)
      throw new GenerationError(`marks has ${wrong}, and input_ids has ${input_ids.length} ids.`, {
        option: 'marks',
        got: wrong,
        length: input_ids.length,
      });
    if (state == null) this.limit(input_ids.length);
    this.beside = this.needsLogits();
    this.bias = this.constantBias();
  }

  /** The criteria of a row, beside its length; time counts from here. */
  criteria(): StoppingCriteria[] {
    const { tokenizer = this.known.tokenizer, stopping_criteria } = this.request;
    return criteriaOf(this.options, { input_ids: [], tokenizer, stopping_criteria });
  }

  /** Most new ids of a row. @throws GenerationError where there is no room for one */
  limit(prompt_length: number): number {
    const limit = limitOf(this.options, prompt_length);
    if (limit >= 1) return limit;
    const { max_length } = this.options;
    throw new GenerationError(
      `The prompt has ${prompt_length} ids, and max_length is ${max_length}: no room for a new one. Raise max_length, or set max_new_tokens, which does not count the prompt.`,
      { option: 'max_length', got: max_length, length: prompt_length },
    );
  }

  /** How a row chooses that has so many new ids, and for how many tokens that is so. */
  sampling(done: number, prompt_length: number): { sampling: RowSampling; room: number } {
    const { options: o, request } = this;
    const least = o.eos_token_id.length > 0 ? Math.max(o.min_new_tokens, o.min_length - prompt_length) : 0;
    const begins = done === 0 && o.begin_suppress_tokens.length > 0;
    const early = done < least;
    const key = `${begins}${early}`;
    let bias = this.biases.get(key);
    if (!bias) {
      const never = [...(begins ? o.begin_suppress_tokens : []), ...(early ? o.eos_token_id : [])];
      bias = never.length === 0 ? this.bias : new Map([...this.bias, ...never.map((id) => [id, -Infinity] as const)]);
      this.biases.set(key, bias);
    }
    const sampling: RowSampling = {
      do_sample: o.do_sample,
      temperature: o.temperature,
      top_k: o.top_k,
      top_p: o.top_p,
      min_p: o.min_p,
      typical_p: o.typical_p,
      epsilon_cutoff: o.epsilon_cutoff,
      eta_cutoff: o.eta_cutoff,
      repetition_penalty: o.repetition_penalty,
      presence_penalty: request.presence_penalty ?? 0,
      frequency_penalty: request.frequency_penalty ?? 0,
      bias,
      eos: o.eos_token_id,
    };
    return { sampling, room: begins ? 1 : early ? least - done : Infinity };
  }

  private needsLogits(): boolean {
    const { options: o, request, known } = this;
    return (
      o.num_beams > 1 ||
      o.guidance_scale !== null ||
      (request.logits_processor?.length ?? 0) > 0 ||
      request.prefix_allowed_tokens_fn != null ||
      (o.sequence_bias?.some(([ids]) => ids.length > 1) ?? false) ||
      o.no_repeat_ngram_size > 0 ||
      o.bad_words_ids !== null ||
      o.forced_bos_token_id !== null ||
      o.forced_eos_token_id !== null ||
      o.remove_invalid_values ||
      o.exponential_decay_length_penalty !== null ||
      (o.do_sample && o.top_h !== null) ||
      o.eos_token_id.length > known.most_eos
    );
  }

  private constantBias(): Map<number, number> {
    const { options: o, request, known } = this;
    const bias = new Map<number, number>();
    const single = (o.sequence_bias ?? []).filter(([ids]) => ids.length === 1).map(([[id], by]) => [id!, by] as const);
    for (const [id, by] of [...single, ...(request.logit_bias ?? [])]) bias.set(id, (bias.get(id) ?? 0) + by);
    for (const id of o.suppress_tokens) bias.set(id, -Infinity);
    for (let id = known.vocab_limit; id < known.vocab_size; id++) bias.set(id, -Infinity);
    return bias;
  }

  private checkVocabulary(name: string, ids: readonly number[]): void {
    const { vocab_size } = this.known;
    const wrong = ids.find((id) => id >= vocab_size);
    if (wrong === undefined) return;
    throw new GenerationError(`${name} names the id ${wrong}; the model's vocabulary has ${vocab_size} ids.`, {
      option: name,
      got: wrong,
      vocab_size,
    });
  }

  private refuseBeams(name: 'logprobs' | 'keep_state' | 'constraint' | 'presence_penalty' | 'frequency_penalty'): void {
    const value = this.request[name];
    if (value === undefined || value === null || value === false || value === 0) return;
    throw new GenerationError(`${name} is ${quote(value)}, which is not offered with num_beams. Set num_beams: 1.`, {
      option: name,
      got: value,
    });
  }
}
