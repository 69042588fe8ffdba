/** `mamba2 generate`: continues a text. `mamba2 run --task text-generation` is the same by the name of its task. */
import { Option, type Command } from 'commander';
import { ArgumentError } from '../base/errors.js';
import type { TextStreamer } from '../generation/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import {
  addModelOptions,
  addSamplingOptions,
  keepCompiledPrograms,
  loadingOptions,
  loadModel,
  loadTokenizer,
  readContinuation,
  readPrompt,
  samplingOptions,
  type ModelOptions,
  type SamplingOptions,
} from './options.js';
import { write } from './output.js';

interface Options extends ModelOptions, SamplingOptions {
  stream: boolean;
  json?: boolean;
  state?: string;
}

export function registerGenerate(program: Command): void {
  const command = program.command('generate').description('continue a text');
  addTextGeneration(command).action(generate);
}

export function registerRun(program: Command): void {
  const command = program
    .command('run')
    .description('run a task with a model')
    .addOption(new Option('--task <task>', 'what to do').choices(['text-generation']).default('text-generation'));
  addTextGeneration(command).action(generate);
}

function addTextGeneration(command: Command): Command {
  command.argument('[prompt...]', 'the text to continue; without one, standard input is read');
  addModelOptions(command);
  addSamplingOptions(command, 100);
  return command
    .option('--state <file>', 'go on from what `mamba2 state save` kept; then the text may be left out')
    .option('--no-stream', 'print the text when it is whole, not while it is written')
    .option('--stream', 'print the text while it is written (default)')
    .option('--json', 'print one line of JSON when the text is whole');
}

async function generate(words: string[], options: Options): Promise<void> {
  if (options.state !== undefined) return continueState(words, options, options.state);
  const prompt = await readPrompt(words);
  const [{ pipeline }, { TextStreamer }] = await Promise.all([
    import('../pipelines/index.js'),
    import('../generation/index.js'),
  ]);
  await keepCompiledPrograms();
  const began = performance.now();
  const generator = await pipeline('text-generation', options.model, {
    ...loadingOptions(options),
    ...(options.tokenizer !== undefined && { tokenizer: options.tokenizer }),
  });
  const loaded = performance.now();
  try {
    const streaming = options.stream && !options.json;
    const streamer = new TextStreamer(generator.tokenizer, { skip_special_tokens: true, callback_function: write });
    const rows = await generator(prompt, {
      ...samplingOptions(options),
      ...(streaming ? { streamer } : {}),
      return_dict: true,
    });
    const { generated_text: text, ...counts } = rows[0]!;
    if (options.json) {
      const times = timesOf(began, loaded, counts.completion_tokens);
      await write(`${JSON.stringify({ model: options.model, prompt, generated_text: text, ...counts, ...times })}\n`);
    } else await write(streaming ? '\n' : `${text}\n`);
  } finally {
    generator.dispose();
  }
}

/** How long it took to load and to write, the reading of the prompt and compiling included. */
function timesOf(began: number, loaded: number, tokens: number): Record<string, number> {
  const seconds = (performance.now() - loaded) / 1000;
  return { load_seconds: (loaded - began) / 1000, seconds, tokens_per_second: tokens / seconds };
}

/** Goes on from a saved state: feeds the new text alone, and prints it with what follows. */
async function continueState(words: string[], options: Options, file: string): Promise<void> {
  const prompt = await readContinuation(words);
  const { Mamba2State } = await import('../models/mamba2/index.js');
  const began = performance.now();
  const tokenizer = await loadTokenizer(options);
  const model = await loadModel(options);
  try {
    const state = await Mamba2State.load(model, file);
    if (state.batch !== 1) {
      throw new ArgumentError(`--state: ${file} holds ${state.batch} rows, expected 1. mamba2 state show tells more.`, {
        file,
        got: state.batch,
      });
    }
    const loaded = performance.now();
    let text = '';
    const streaming = options.stream && !options.json;
    const take = streaming ? write : (piece: string): void => void (text += piece);
    const streamer = await streamerAfter(tokenizer, state.ids[0]!, take);
    const ids = prompt === '' ? [] : await tokenizer.encode(prompt, { add_special_tokens: false });
    const out = await model.generate({
      ...samplingOptions(options),
      input_ids: [ids],
      state,
      tokenizer,
      streamer,
      return_dict_in_generate: true,
    });
    state.dispose();
    if (options.json) {
      const completion_tokens = out.new_tokens[0]!.length;
      const counts = { finish_reason: out.finish_reasons[0], prompt_tokens: ids.length, completion_tokens };
      const times = timesOf(began, loaded, completion_tokens);
      const result = { model: options.model, state: file, prompt, generated_text: text, ...counts, ...times };
      await write(`${JSON.stringify(result)}\n`);
    } else await write(streaming ? '\n' : `${text}\n`);
  } finally {
    model.dispose();
  }
}

/** A streamer of what comes after these ids: they are its context, since some decoders treat the first id of a text differently. */
async function streamerAfter(
  tokenizer: Tokenizer,
  ids: readonly number[],
  take: (text: string) => void | Promise<void>,
): Promise<TextStreamer> {
  const { TextStreamer } = await import('../generation/index.js');
  const context = ids.slice(-8);
  // the last id may be the beginning of a character only: the rest of it is new
  const known = (await tokenizer.decode(context, { skip_special_tokens: true })).replace(/\uFFFD+$/, '');
  let old = known.length;
  const streamer = new TextStreamer(tokenizer, {
    skip_special_tokens: true,
    callback_function: (text) => {
      const fresh = text.slice(old);
      old = Math.max(0, old - text.length);
      return take(fresh);
    },
  });
  await streamer.put([context]);
  return streamer;
}
