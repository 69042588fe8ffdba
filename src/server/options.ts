/** Options of a server. */
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable } from '../base/options.js';
import type { SchedulerOptions, StateCacheOptions } from '../engine/scheduler/types.js';
import type { CausalLM } from '../models/causal_lm.js';
import type { Tokenizer } from '../tokenizers/index.js';

/** What a server serves, and how. */
export interface ServerOptions {
  /** The model. It stays the caller's to dispose of. */
  model: CausalLM;
  /** Its tokenizer. */
  tokenizer: Tokenizer;
  /** What clients call the model. Default: 'mamba2'. */
  model_name?: string;
  /** Where to listen. Default '127.0.0.1', which other machines cannot reach. */
  host?: string;
  /** Default 8000; 0 takes a free one. */
  port?: number;
  /** Keys, of which each request to `/v1/…`, `/tokenize` and `/detokenize` must have one as its bearer token. Default: none is asked for. */
  api_keys?: readonly string[];
  /** Origins whose pages may call the server from a browser; '*' for all. Default: none but its own. */
  cors?: readonly string[];
  /** Names by which a server without keys on a loopback address may be called, beside localhost: pages of other names are refused. */
  allowed_hosts?: readonly string[];
  /** Rows that run at once. Default 8. */
  rows?: number;
  /** Requests that may wait for a row; more are answered with 429. Default 256. */
  queue?: number;
  /** Most ids of prompts that are read between two blocks of tokens. Default: the scheduler's. */
  prompt_tokens?: number;
  /** Budgets and folder of kept states; false keeps no prefixes. */
  state_cache?: StateCacheOptions | false;
  /** Most bytes of a request's body. Default 4 MiB. */
  max_body?: number;
  /** Most tokens of a prompt. Default 1,000,000: a state does not grow. */
  max_prompt_tokens?: number;
  /** Most new tokens of a choice; also what a chat gets that does not say. Default 4096. */
  max_tokens?: number;
  /** Most choices (`n`), and most prompts of one request. Default 16. */
  max_choices?: number;
  /** Seconds that a request may take in all. Default 600. */
  request_seconds?: number;
  /** Seconds that a client may leave a stream unread. Default 30. */
  stall_seconds?: number;
  /** Seconds that running requests have when the server is told to end. Default 30. */
  drain_seconds?: number;
  /** 'silent', 'error', 'warn', 'info' (default) or 'debug': JSON lines on standard output, without texts. */
  log_level?: LogLevel;
  /** Writes prompts into the log, too. Default false. */
  log_prompts?: boolean;
  /** Whether `/` is a page to try the model in. Default true. */
  page?: boolean;
}

export type LogLevel = 'silent' | 'error' | 'warn' | 'info' | 'debug';

const { integer, number, boolean, text, listOf, oneOf } = kinds;

const RULES: OptionRules<ServerOptions> = {
  model: { kind: kinds.having('a model', 'engine', 'generate') },
  tokenizer: { kind: kinds.having('a Tokenizer', 'encode', 'decode') },
  model_name: { kind: text, default: 'mamba2' },
  host: { kind: text, default: '127.0.0.1' },
  port: { kind: integer({ min: 0, max: 65535 }), default: 8000 },
  api_keys: {
    kind: listOf(
      kinds.named(
        'a text of at least one character without spaces',
        (v) => typeof v === 'string' && /^[\x21-\x7e]+$/.test(v),
      ),
      'keys: texts of printable ASCII without spaces',
    ),
    default: [],
  },
  cors: { kind: listOf(text, 'origins'), default: [] },
  allowed_hosts: { kind: listOf(text, 'names of hosts'), default: [] },
  rows: { kind: integer({ min: 1 }), default: 8 },
  queue: { kind: integer({ min: 0 }), default: 256 },
  prompt_tokens: { kind: integer({ min: 1 }) },
  state_cache: { kind: kinds.named('an object of budgets, or false', (v) => v === false || kinds.object.ok(v)) },
  max_body: { kind: integer({ min: 1 }), default: 4 * 2 ** 20 },
  max_prompt_tokens: { kind: integer({ min: 1 }), default: 1_000_000 },
  max_tokens: { kind: integer({ min: 1 }), default: 4096 },
  max_choices: { kind: integer({ min: 1 }), default: 16 },
  request_seconds: { kind: number({ above: 0 }), default: 600 },
  stall_seconds: { kind: number({ above: 0 }), default: 30 },
  drain_seconds: { kind: number({ min: 0 }), default: 30 },
  log_level: { kind: oneOf('silent', 'error', 'warn', 'info', 'debug'), default: 'info' },
  log_prompts: { kind: boolean, default: false },
  page: { kind: boolean, default: true },
};

const SERVER_TABLE = new OptionTable<ServerOptions>('createServer()', RULES, {
  others: {
    api_key: 'api_keys',
    max_num_seqs: 'rows',
    parallel: 'rows',
    served_model_name: 'model_name',
    max_model_len: {
      why: 'a state holds a text of any length; max_prompt_tokens limits what one request may send',
      off: [null],
    },
    ssl_keyfile: { why: 'TLS belongs to the proxy in front (docs/server.md)', off: [null] },
  },
});

type Filled = Exclude<keyof ServerOptions, 'model' | 'tokenizer' | 'prompt_tokens' | 'state_cache'>;

/** Options with defaults filled in. */
export type Settings = ServerOptions & Required<Pick<ServerOptions, Filled>>;

/** @throws ArgumentError for options that are wrong */
export function settingsOf(options: ServerOptions): Settings {
  const settings = SERVER_TABLE.fill<Filled>(options);
  for (const name of ['model', 'tokenizer'] as const) SERVER_TABLE.checkValue(name, settings[name] ?? null);
  return settings;
}

/** What of it is the scheduler's. */
export function schedulerOptions(settings: Settings): SchedulerOptions {
  const { rows, queue, prompt_tokens, state_cache, tokenizer, model } = settings;
  return {
    rows,
    queue,
    tokenizer,
    generation_config: model.generation_config,
    ...(prompt_tokens !== undefined && { prompt_tokens }),
    ...(state_cache !== undefined && { state_cache }),
  };
}
