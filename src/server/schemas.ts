/** JSON schemas of what requests and answers hold. Requests are checked by them, and `/openapi.json` is made of them. */

/** A JSON schema. */
export type Schema = Readonly<Record<string, unknown>>;

const orNull = (type: string, rest: Schema = {}): Schema => ({ type: [type, 'null'], ...rest });

/** The text of a field's documentation. */
const say = (schema: Schema, description: string): Schema => ({ ...schema, description });

const object = (properties: Record<string, Schema>, required: readonly string[] = []): Schema => ({
  type: 'object',
  properties,
  additionalProperties: false,
  ...(required.length && { required }),
});

/** Fields that completions and chats have in common. */
const GENERATION: Record<string, Schema> = {
  model: say(orNull('string'), 'Name of the model, as /v1/models has it.'),
  max_tokens: say(orNull('integer', { minimum: 0 }), 'Most new tokens of a choice.'),
  n: say(orNull('integer', { minimum: 1 }), 'Choices for each prompt, which is read once.'),
  temperature: say(
    orNull('number', { minimum: 0, maximum: 2 }),
    '0 takes the best token. Default: the model’s own, else 1.',
  ),
  top_p: say(orNull('number', { minimum: 0, maximum: 1 }), 'Samples from the best with this probability together.'),
  top_k: say(orNull('integer', { minimum: -1 }), 'Samples from the k best; 0 or -1 for all.'),
  min_p: say(orNull('number', { minimum: 0, maximum: 1 }), 'Samples from those this fraction as probable as the best.'),
  repetition_penalty: say(orNull('number', { exclusiveMinimum: 0 }), 'Above 1 discourages tokens that occurred.'),
  presence_penalty: say(orNull('number', { minimum: -2, maximum: 2 }), 'Taken from tokens that were written before.'),
  frequency_penalty: say(
    orNull('number', { minimum: -2, maximum: 2 }),
    'Taken from tokens as often as they were written.',
  ),
  logit_bias: say(
    orNull('object', { additionalProperties: { type: 'number', minimum: -100, maximum: 100 } }),
    'Added to the scores of tokens, by their ids.',
  ),
  seed: say(
    orNull('integer', { minimum: -9007199254740991, maximum: 9007199254740991 }),
    'The same seed gives the same text.',
  ),
  stop: say(
    { type: ['string', 'array', 'null'], items: { type: 'string', minLength: 1 }, maxItems: 16, minLength: 1 },
    'Texts that end a choice; they are not part of it.',
  ),
  stream: say(orNull('boolean'), 'Sends the text as it is written.'),
  stream_options: say(
    {
      type: ['object', 'null'],
      properties: { include_usage: { type: 'boolean' }, include_obfuscation: { type: 'boolean', enum: [false] } },
      additionalProperties: false,
    },
    'include_usage: a last chunk with counts.',
  ),
  user: say(orNull('string'), 'Whose the request is: requests of several take turns by this name.'),
  metadata: say(orNull('object'), 'Not read.'),
  prompt_cache_key: say(orNull('string', { maxLength: 256 }), 'A name of the session, as the header X-Session-Id.'),
  priority: say(orNull('integer', { minimum: -100, maximum: 100 }), 'Higher goes first. Default 0.'),
  state: say(orNull('string', { maxLength: 64 }), 'Id of a kept state to go on from (see /v1/states).'),
  keep_state: say(
    orNull('boolean'),
    'Keeps the state after the first choice; its id comes with the answer, as `state`.',
  ),
};

export const COMPLETION_BODY: Schema = object({
  ...GENERATION,
  prompt: say(
    { type: ['string', 'array'], items: { type: ['string', 'integer', 'array'], items: { type: 'integer' } } },
    'A text, a list of texts, ids of one prompt, or lists of ids.',
  ),
  echo: say(orNull('boolean'), 'Begins each choice with its prompt.'),
  logprobs: say(
    orNull('integer', { minimum: 0, maximum: 20 }),
    'Log-probabilities of the tokens, and of so many of the best.',
  ),
});

const TEXT_PARTS: Schema = {
  type: ['string', 'array', 'null'],
  items: {
    type: 'object',
    properties: { type: { type: 'string' }, text: { type: 'string' } },
    required: ['type'],
  },
};

const TOOL_CALL: Schema = {
  type: 'object',
  properties: {
    id: { type: 'string' },
    type: { type: 'string', enum: ['function'] },
    function: {
      type: 'object',
      properties: { name: { type: 'string' }, arguments: { type: 'string' } },
      required: ['name', 'arguments'],
    },
  },
  required: ['function'],
};

const MESSAGE: Schema = {
  type: 'object',
  properties: {
    role: { type: 'string', enum: ['developer', 'system', 'user', 'assistant', 'tool'] },
    content: TEXT_PARTS,
    name: orNull('string'),
    tool_calls: { type: ['array', 'null'], items: TOOL_CALL },
    tool_call_id: orNull('string'),
    refusal: orNull('string'),
  },
  required: ['role'],
  additionalProperties: false,
};

const RESPONSE_FORMAT: Schema = {
  type: ['object', 'null'],
  properties: {
    type: { type: 'string', enum: ['text', 'json_object', 'json_schema'] },
    json_schema: {
      type: 'object',
      properties: {
        name: { type: 'string' },
        description: orNull('string'),
        schema: { type: ['object', 'boolean'] },
        strict: orNull('boolean'),
      },
      additionalProperties: false,
    },
  },
  required: ['type'],
  additionalProperties: false,
};

const TOOL: Schema = object(
  {
    type: { type: 'string', enum: ['function'] },
    function: object(
      {
        name: { type: 'string', pattern: '^[a-zA-Z0-9_.-]{1,64}$' },
        description: orNull('string'),
        parameters: { type: ['object', 'null'] },
        strict: orNull('boolean'),
      },
      ['name'],
    ),
  },
  ['type', 'function'],
);

export const CHAT_BODY: Schema = object(
  {
    ...GENERATION,
    messages: say({ type: 'array', minItems: 1, items: MESSAGE }, 'The conversation, oldest first.'),
    max_completion_tokens: say(orNull('integer', { minimum: 1 }), 'The same as max_tokens, by its newer name.'),
    logprobs: say(orNull('boolean'), 'Gives log-probabilities of the tokens.'),
    top_logprobs: say(orNull('integer', { minimum: 0, maximum: 20 }), 'And of so many of the best, with logprobs.'),
    response_format: say(RESPONSE_FORMAT, 'json_object, or json_schema: the text parses, and fits the schema.'),
    tools: say({ type: ['array', 'null'], items: TOOL, maxItems: 128 }, 'Functions that the model may call.'),
    tool_choice: say(
      {
        type: ['string', 'object', 'null'],
        properties: {
          type: { type: 'string', enum: ['function'] },
          function: object({ name: { type: 'string' } }, ['name']),
        },
      },
      "'none', 'auto', 'required', or the one to call.",
    ),
    parallel_tool_calls: say(orNull('boolean'), 'Whether one answer may call several tools.'),
  },
  ['messages'],
);

/** Fields of completions that are the same here. */
const SHARED_WITH_RESPONSES = Object.fromEntries(
  [
    ...['model', 'temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty', 'presence_penalty'],
    ...['frequency_penalty', 'logit_bias', 'seed', 'stream', 'user', 'prompt_cache_key', 'priority'],
  ].map((name) => [name, GENERATION[name]!]),
);

export const RESPONSES_BODY: Schema = object(
  {
    ...SHARED_WITH_RESPONSES,
    input: say(
      { type: ['string', 'array'], items: { type: 'object' }, minItems: 1 },
      'A text, or items: messages, function_call and function_call_output.',
    ),
    instructions: say(orNull('string'), 'What the model is told first; of this request alone.'),
    max_output_tokens: say(orNull('integer', { minimum: 1 }), 'Most new tokens.'),
    text: say(
      {
        type: ['object', 'null'],
        properties: {
          format: {
            type: ['object', 'null'],
            properties: {
              type: { type: 'string', enum: ['text', 'json_object', 'json_schema'] },
              name: { type: 'string' },
              description: orNull('string'),
              schema: { type: ['object', 'boolean'] },
              strict: orNull('boolean'),
            },
            required: ['type'],
            additionalProperties: false,
          },
          verbosity: { type: ['string', 'null'], enum: ['medium', null] },
        },
        additionalProperties: false,
      },
      'format: json_object, or json_schema: the text parses, and fits the schema.',
    ),
    tools: say(
      {
        type: ['array', 'null'],
        maxItems: 128,
        items: object(
          {
            type: { type: 'string', enum: ['function'] },
            name: { type: 'string', pattern: '^[a-zA-Z0-9_.-]{1,64}$' },
            description: orNull('string'),
            parameters: { type: ['object', 'null'] },
            strict: orNull('boolean'),
          },
          ['type', 'name'],
        ),
      },
      'Functions that the model may call.',
    ),
    tool_choice: say(
      {
        type: ['string', 'object', 'null'],
        properties: { type: { type: 'string', enum: ['function'] }, name: { type: 'string' } },
        additionalProperties: false,
      },
      "'none', 'auto', 'required', or the one to call.",
    ),
    parallel_tool_calls: say(orNull('boolean'), 'Whether one answer may call several tools.'),
    previous_response_id: say(orNull('string', { maxLength: 64 }), 'The response that this one goes on from.'),
    store: say(orNull('boolean'), 'Keeps the response, to go on from it. Default true.'),
    stream_options: say(
      {
        type: ['object', 'null'],
        properties: { include_obfuscation: { type: 'boolean', enum: [false] } },
        additionalProperties: false,
      },
      'Nothing that could be set.',
    ),
    metadata: say(orNull('object'), 'Comes back with the response.'),
  },
  ['input'],
);

export const EMBEDDINGS_BODY: Schema = object(
  {
    model: GENERATION.model!,
    input: say(
      { type: ['string', 'array'], items: { type: ['string', 'integer', 'array'], items: { type: 'integer' } } },
      'A text, a list of texts, ids of one text, or lists of ids.',
    ),
    encoding_format: say({ type: ['string', 'null'], enum: ['float', 'base64', null] }, 'Default float.'),
    pooling: say(
      { type: ['string', 'null'], enum: ['mean', 'last', null] },
      'What of the hidden states is taken. Default mean.',
    ),
    normalize: say(orNull('boolean'), 'Scales vectors to length 1. Default true.'),
    user: GENERATION.user!,
  },
  ['input'],
);

export const TOKENIZE_BODY: Schema = object({
  model: GENERATION.model!,
  prompt: { type: 'string' },
  messages: { type: 'array', minItems: 1, items: MESSAGE },
  add_special_tokens: orNull('boolean'),
  add_generation_prompt: orNull('boolean'),
  return_token_strs: orNull('boolean'),
});

export const DETOKENIZE_BODY: Schema = object(
  {
    model: GENERATION.model!,
    tokens: { type: 'array', items: { type: 'integer', minimum: 0 } },
    skip_special_tokens: orNull('boolean'),
  },
  ['tokens'],
);

export const STATES_BODY: Schema = object({
  prompt: say({ type: ['string', 'array'], items: { type: 'integer' } }, 'A text, or its ids.'),
  messages: { type: 'array', minItems: 1, items: MESSAGE },
  state: say(orNull('string', { maxLength: 64 }), 'Goes on from this kept state.'),
});

/** What fields of others are refused with, and values that ask for nothing and pass. */
export const UNSUPPORTED: Readonly<Record<string, { why: string; off: readonly unknown[] }>> = {
  suffix: { why: 'the model reads from left to right and cannot fill in before a given end', off: [null, ''] },
  best_of: { why: 'ask for n choices with logprobs and take the best of them', off: [null, 1] },
  audio: { why: 'the model reads and writes text', off: [null] },
  modalities: { why: 'the model reads and writes text', off: [null] },
  functions: { why: 'it was replaced by tools', off: [null] },
  function_call: { why: 'it was replaced by tool_choice', off: [null] },
  prediction: { why: 'no text is predicted ahead', off: [null] },
  reasoning_effort: { why: 'the model has no reasoning that could be set', off: [null, 'none'] },
  service_tier: { why: 'there is one tier; use priority', off: [null, 'auto', 'default'] },
  store: { why: 'answers are not stored; keep_state keeps the state after one', off: [null, false] },
  verbosity: { why: 'the model has no verbosity that could be set', off: [null, 'medium'] },
  web_search_options: { why: 'the server searches nothing', off: [null] },
  dimensions: { why: 'vectors are those of the model', off: [null] },
  safety_identifier: { why: 'use user', off: [null] },
  background: { why: 'a response is given to who asked for it', off: [null, false] },
  conversation: { why: 'use previous_response_id', off: [null] },
  include: { why: 'a response has all there is; log-probabilities are those of /v1/chat/completions', off: [null, []] },
  max_tool_calls: { why: 'tools are called by the client, who counts', off: [null] },
  reasoning: {
    why: 'the model has no reasoning that could be set',
    off: [null, {}, { effort: null }, { effort: 'none' }],
  },
  truncation: { why: 'a state holds a text of any length, and nothing is cut', off: [null, 'disabled'] },
  prompt_cache_retention: { why: 'states are kept as long as there is room', off: [null] },
  guided_json: { why: 'use response_format', off: [null] },
  guided_regex: { why: 'use response_format with a schema', off: [null] },
  use_beam_search: { why: 'beam search is an option of generate() in a program', off: [null, false] },
};
