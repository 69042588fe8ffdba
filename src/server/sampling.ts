/** Fields of requests as options of generate(). */
import type { ScheduledRequest } from '../engine/scheduler/types.js';
import type { ChatBody, GenerationBody } from './bodies.js';
import { badParam } from './errors.js';
import type { Settings } from './options.js';

/** What of a request is the same for each of its prompts. */
export type Sampling = Omit<ScheduledRequest, 'input_ids'>;

/**
 * @param most new tokens, as the request says it by any of its names;
 * @throws ApiError for what is beyond the server's limits, by name
 */
export function samplingOf(body: GenerationBody, settings: Settings, most: number): Sampling {
  const n = body.n ?? 1;
  if (n > settings.max_choices) throw beyond('n', n, settings.max_choices);
  return {
    max_new_tokens: most,
    max_length: undefined,
    num_return_sequences: n,
    ...(body.seed != null && { seed: seedOf(body.seed) }),
    ...temperatureOf(body, settings),
    ...(body.repetition_penalty != null && { repetition_penalty: body.repetition_penalty }),
    ...(body.presence_penalty ? { presence_penalty: body.presence_penalty } : {}),
    ...(body.frequency_penalty ? { frequency_penalty: body.frequency_penalty } : {}),
    ...biasOf(body, settings),
    ...(body.priority != null && { priority: body.priority }),
    ...(body.keep_state && { keep_state: true }),
    ...(body.state != null && { state: body.state }),
    ...(stopsOf(body).length > 0 && { stop_strings: stopsOf(body) }),
  };
}

/** Texts that end a choice. */
export function stopsOf({ stop }: GenerationBody): readonly string[] {
  if (stop == null) return [];
  return typeof stop === 'string' ? [stop] : stop;
}

/** How many new tokens a choice may have. @throws ApiError for more than the server gives */
export function lengthOf(
  body: GenerationBody & Pick<ChatBody, 'max_completion_tokens'>,
  limit: number,
  otherwise: number,
): number {
  const { max_tokens, max_completion_tokens } = body;
  if (max_tokens != null && max_completion_tokens != null && max_tokens !== max_completion_tokens)
    throw badParam('max_tokens', 'max_tokens and max_completion_tokens are two names of one limit, and differ.');
  const asked = max_completion_tokens ?? max_tokens ?? Math.min(otherwise, limit);
  if (asked <= limit) return asked;
  throw beyond(max_completion_tokens == null ? 'max_tokens' : 'max_completion_tokens', asked, limit);
}

function beyond(param: string, got: number, limit: number): Error {
  return badParam(param, `'${param}' is ${got}; this server gives at most ${limit}.`, 'above_limit');
}

/** Seeds of any sign; those of generate() are 0 or more. */
function seedOf(seed: number): number {
  return seed < 0 ? Number.MAX_SAFE_INTEGER + seed : seed;
}

/** What speaks of sampling turns it on; temperature 0 turns it off. Without a word, the model's own settings, else all of its probabilities. */
function temperatureOf(body: GenerationBody, { model }: Settings): Partial<Sampling> {
  const { temperature, top_p, top_k, min_p } = body;
  if (temperature === 0) return { do_sample: false };
  const own = model.generation_config;
  const restricts = {
    ...(top_p != null && { top_p }),
    ...(min_p != null && { min_p }),
    ...(top_k != null && { top_k: Math.max(0, top_k) }),
  };
  // top_k is 50 in transformers where nobody says otherwise; here nothing is left out unasked
  return { do_sample: true, temperature: temperature ?? own.temperature ?? 1, top_k: own.top_k ?? 0, ...restricts };
}

function biasOf({ logit_bias }: GenerationBody, { tokenizer }: Settings): Partial<Sampling> {
  if (logit_bias == null) return {};
  const bias = Object.entries(logit_bias).map(([key, value]) => {
    const id = /^\d+$/.test(key) ? Number(key) : -1;
    if (id < 0 || id >= tokenizer.vocab_size)
      throw badParam(
        'logit_bias',
        `'logit_bias' names '${key.slice(0, 40)}'; expected ids from 0 to ${tokenizer.vocab_size - 1}.`,
      );
    // the API's own words: -100 bans a token
    return [id, value === -100 ? -Infinity : value] as const;
  });
  return bias.length ? { logit_bias: bias } : {};
}
