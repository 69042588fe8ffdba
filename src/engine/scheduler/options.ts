/** The rules of what a scheduler is given. */
import { GenerationError } from '../../base/errors.js';
import { totalMemory } from '../../base/memory.js';
import { omit } from '../../base/omit.js';
import * as kinds from '../../base/option_kinds.js';
import { OptionTable } from '../../base/options.js';
import { GENERATION_OTHERS, GENERATION_RULES } from '../../generation/option_rules.js';
import type { GenerationOptions } from '../../generation/options.js';
import type {
  KeptStates,
  ScheduledRequest,
  SchedulerOptions,
  SchedulerWarmupOptions,
  StateCacheOptions,
} from './types.js';

const { orNull, listOf, integer, number, boolean, named } = kinds;

const tokenizer = orNull(kinds.having('a Tokenizer', 'encode', 'decode'));
const signal = orNull(kinds.abortSignal);
const bytes = named('a number of bytes, 0 or more', number({ min: 0 }));
/** Names of states: none of them is a path. */
export const STATE_ID = /^[A-Za-z0-9_-]{1,80}$/;
const stateId = named('the id of a kept state', (v) => typeof v === 'string' && STATE_ID.test(v));
const ids = named('a list of ids', (v) => Array.isArray(v) || (ArrayBuffer.isView(v) && !(v instanceof DataView)));
const bias = named(
  '[id, bias]',
  (v) =>
    Array.isArray(v) && v.length === 2 && integer({ min: 0 }).ok(v[0]) && typeof v[1] === 'number' && v[1] < Infinity,
);

const returned = { why: 'a scheduler gives events and a result; see logprobs', off: [null, false] } as const;

export const REQUEST_TABLE = new OptionTable<ScheduledRequest>(
  'submit()',
  {
    ...omit<
      typeof GENERATION_RULES,
      keyof GenerationOptions & ('return_dict_in_generate' | 'output_scores' | 'output_logits')
    >(GENERATION_RULES, 'return_dict_in_generate', 'output_scores', 'output_logits'),
    input_ids: { kind: ids },
    presence_penalty: { kind: number() },
    frequency_penalty: { kind: number() },
    logit_bias: { kind: listOf(bias, '[id, bias]') },
    constraint: { kind: kinds.func },
    logprobs: { kind: orNull(integer({ min: 0, max: 20 })) },
    tokenizer: { kind: tokenizer },
    stopping_criteria: {
      kind: orNull(listOf(kinds.having('a stopping criterion', 'done'), 'stopping criteria, objects with done()')),
    },
    logits_processor: {
      kind: orNull(listOf(kinds.having('a logits processor', 'process'), 'logits processors, objects with process()')),
    },
    prefix_allowed_tokens_fn: { kind: orNull(kinds.func) },
    priority: { kind: number(), default: 0 },
    client: { kind: kinds.anyText, default: '' },
    signal: { kind: signal },
    state: { kind: orNull(stateId) },
    keep_state: { kind: boolean, default: false },
    marks: { kind: listOf(integer({ min: 1 }), 'counts of ids') },
    cache: { kind: boolean, default: true },
  },
  {
    others: {
      ...GENERATION_OTHERS,
      return_dict_in_generate: returned,
      output_scores: returned,
      output_logits: returned,
      prompt: 'input_ids',
      abort_signal: 'signal',
      user: 'client',
      grammar: 'constraint',
      top_logprobs: 'logprobs',
      return_state: 'keep_state',
      streamer: { why: 'a scheduler gives events: iterate what submit() returns', off: [null] },
    },
    error: GenerationError,
  },
);

export const CACHE_TABLE = new OptionTable<StateCacheOptions>('state_cache', {
  device_bytes: { kind: bytes },
  host_bytes: { kind: bytes },
  prompt_end_tokens: { kind: integer({ min: 0 }) },
  host_tokens: { kind: integer({ min: 0 }) },
  folder: { kind: orNull(kinds.text) },
  folder_bytes: { kind: bytes, default: 2 ** 34 },
});

export const SCHEDULER_TABLE = new OptionTable<SchedulerOptions>(
  'new Scheduler()',
  {
    rows: { kind: integer({ min: 1, max: 4096 }), default: 8 },
    row_sizes: { kind: listOf(integer({ min: 1 }), 'numbers of rows, integers of 1 or more') },
    block: { kind: integer({ min: 1, max: 1024 }) },
    queue: { kind: integer({ min: 0 }), default: 256 },
    prompt_tokens: { kind: integer({ min: 1 }) },
    readers: { kind: integer({ min: 1, max: 64 }) },
    slice: { kind: orNull(integer({ min: 1 })) },
    state_cache: { kind: named('an object of its options, or false', (v) => v === false || kinds.object.ok(v)) },
    generation_config: { kind: orNull(named('a GenerationConfig, or an object of its options', kinds.object)) },
    tokenizer: { kind: tokenizer },
    vocab_limit: { kind: orNull(integer({ min: 1 })) },
    on_event: { kind: kinds.func },
  },
  {
    others: {
      max_num_seqs: 'rows',
      parallel: 'rows',
      batch_size: 'rows',
      max_num_batched_tokens: 'prompt_tokens',
      max_queue: 'queue',
      cache: 'state_cache',
    },
  },
);

export const SCHEDULER_WARMUP_TABLE = new OptionTable<SchedulerWarmupOptions>('Scheduler.warmup()', {
  stepwise: { kind: boolean, default: false },
});

/** Options of KeptStates.create(). */
export type CreateOptions = NonNullable<Parameters<KeptStates['create']>[1]>;

export const CREATE_TABLE = new OptionTable<CreateOptions>('states.create()', {
  from: { kind: orNull(stateId) },
  priority: { kind: number(), default: 0 },
  client: { kind: kinds.anyText, default: '' },
  signal: { kind: signal },
});

/** Bytes of snapshots in memory where nothing is said. */
export const hostBytes = (): number => totalMemory() / 8;
