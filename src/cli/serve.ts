/** `mamba2 serve`: a model over HTTP, by the API of OpenAI. */
import * as path from 'node:path';
import { Option, type Command } from 'commander';
import { ArgumentError } from '../base/errors.js';
import { onStopSignal } from '../base/stop_signals.js';
import { readTextFile } from '../base/text_files.js';
import { addModelOptions, bytesFrom, loadModel, loadTokenizer, numberIn, type ModelOptions } from './options.js';
import { note } from './output.js';

interface Options extends ModelOptions {
  name?: string;
  host: string;
  port: number;
  apiKey?: string[];
  apiKeyFile?: string;
  cors?: string[];
  allowedHost?: string[];
  rows: number;
  queue: number;
  stateCache?: number;
  stateFolder?: string;
  maxTokens?: number;
  maxPromptTokens?: number;
  maxBody?: number;
  requestSeconds?: number;
  drainSeconds?: number;
  chatTemplate?: string;
  logLevel: 'silent' | 'error' | 'warn' | 'info' | 'debug';
  logPrompts?: boolean;
  page: boolean;
}

const whole = { min: 1, whole: true };
const gather = (value: string, before: string[] = []): string[] => [...before, value];

export function registerServe(program: Command): void {
  const command = program.command('serve').description('serve a model over HTTP, by the API of OpenAI');
  addModelOptions(command);
  command
    .option('--name <name>', 'what clients call the model (default: the name of its folder)')
    .option('--host <address>', 'where to listen; 0.0.0.0 lets other machines in', '127.0.0.1')
    .option('--port <n>', '0 takes a free one', numberIn({ min: 0, max: 65535, whole: true }), 8000)
    .option('--api-key <key>', 'a key that clients must have (again for more; see --api-key-file)', gather)
    .option('--api-key-file <file>', 'a file of keys, one a line: other users of this machine see arguments, not files')
    .option('--cors <origin>', 'an origin whose pages may call the server; * for all (again for more)', gather)
    .option('--allowed-host <name>', 'a name that a server without keys may be called by (again for more)', gather)
    .option('--rows <n>', 'texts that are written at once', numberIn(whole), 8)
    .option('--queue <n>', 'requests that may wait; more are answered with 429', numberIn({ min: 0, whole: true }), 256)
    .option(
      '--state-cache <size>',
      'memory for kept states, such as 512M or 4G; 0 keeps no prefixes (default: an eighth of all)',
      bytesFrom,
    )
    .option('--state-folder <dir>', 'a folder of kept states, which outlives the server and may be shared by several')
    .option('--max-tokens <n>', 'most new tokens of an answer (default: 4096)', numberIn(whole))
    .option('--max-prompt-tokens <n>', 'most tokens of a prompt (default: 1000000)', numberIn(whole))
    .option('--max-body <size>', 'most bytes of a request (default: 4M)', bytesFrom)
    .option('--request-seconds <s>', 'seconds that a request may take (default: 600)', numberIn({ above: 0 }))
    .option(
      '--drain-seconds <s>',
      'seconds that running requests have after SIGTERM (default: 30)',
      numberIn({ min: 0 }),
    )
    .option('--chat-template <file>', 'a Jinja template (file) instead of the model’s own')
    .addOption(
      new Option('--log-level <level>', 'what is logged, as lines of JSON')
        .choices(['silent', 'error', 'warn', 'info', 'debug'])
        .default('info'),
    )
    .option('--log-prompts', 'log the texts of requests, too')
    .option('--no-page', 'serve no page at /')
    .action(serve);
}

async function serve(options: Options): Promise<void> {
  const api_keys = [...(options.apiKey ?? []), ...(await keysOf(options.apiKeyFile))];
  const { createServer } = await import('../server/index.js');
  const tokenizer = await loadTokenizer(options);
  if (options.chatTemplate !== undefined)
    tokenizer.chat_template = await readTextFile(options.chatTemplate, ArgumentError);
  const model = await loadModel(options);
  try {
    const given = {
      cors: options.cors,
      allowed_hosts: options.allowedHost,
      max_tokens: options.maxTokens,
      max_prompt_tokens: options.maxPromptTokens,
      max_body: options.maxBody,
      request_seconds: options.requestSeconds,
      drain_seconds: options.drainSeconds,
    };
    const stopped = new Promise<string>((resolve) => onStopSignal(resolve));
    const server = await createServer({
      model,
      tokenizer,
      model_name: options.name ?? path.basename(path.resolve(options.model)),
      host: options.host,
      port: options.port,
      api_keys,
      rows: options.rows,
      queue: options.queue,
      log_level: options.logLevel,
      log_prompts: options.logPrompts ?? false,
      page: options.page,
      state_cache: cacheOf(options),
      ...(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as object),
    });
    note(`mamba2: listening on ${server.url}${api_keys.length ? '' : ', without keys'}`);
    const began = performance.now();
    const warm = server.ready.then(() => {
      note(`mamba2: ready after ${((performance.now() - began) / 1000).toFixed(1)} s of compiling and warming up`);
    });
    const signal = await Promise.race([stopped, failed(warm)]);
    note(`mamba2: ${signal}: requests that run come to their end (again to end at once)`);
    await server.close();
  } finally {
    model.dispose();
  }
}

/** Only where warming up fails: whoever serves then, serves errors. */
async function failed(ready: Promise<void>): Promise<never> {
  await ready;
  return new Promise<never>(() => undefined);
}

async function keysOf(file: string | undefined): Promise<string[]> {
  if (file === undefined) return [];
  const keys = (await readTextFile(file, ArgumentError)).split(/\r?\n/).map((line) => line.trim());
  const found = keys.filter((line) => line !== '' && !line.startsWith('#'));
  if (found.length === 0)
    throw new ArgumentError(`--api-key-file: ${file} has no keys; expected one a line.`, { file });
  return found;
}

function cacheOf({ stateCache, stateFolder }: Options): { host_bytes?: number; folder?: string } | false {
  if (stateCache === 0 && stateFolder === undefined) return false;
  return {
    ...(stateCache !== undefined && { host_bytes: stateCache }),
    ...(stateFolder !== undefined && { folder: path.resolve(stateFolder) }),
  };
}
