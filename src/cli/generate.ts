/** `mamba2 generate`: continues a text. `mamba2 run --task text-generation` is the same by the name of its task. */
import { Option, type Command } from 'commander';
import {
  addModelOptions,
  addSamplingOptions,
  readPrompt,
  samplingOptions,
  type ModelOptions,
  type SamplingOptions,
} from './options.js';
import { write } from './output.js';

interface Options extends ModelOptions, SamplingOptions {
  stream: boolean;
  json?: boolean;
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
    .option('--no-stream', 'print the text when it is whole, not while it is written')
    .option('--stream', 'print the text while it is written (default)')
    .option('--json', 'print one line of JSON when the text is whole');
}

async function generate(words: string[], options: Options): Promise<void> {
  const prompt = await readPrompt(words);
  const [{ configureRuntime }, { pipeline }, { TextStreamer }] = await Promise.all([
    import('../runtime/environment.js'),
    import('../pipelines/index.js'),
    import('../generation/index.js'),
  ]);
  const { device, dtype, engine } = options;
  keepCompiledPrograms(configureRuntime);
  const generator = await pipeline('text-generation', options.model, { device, dtype, engine });
  try {
    const streaming = options.stream && !options.json;
    const streamer = new TextStreamer(generator.tokenizer, { skip_special_tokens: true, callback_function: write });
    const [{ generated_text: text }] = await generator(prompt, {
      ...samplingOptions(options),
      ...(streaming ? { streamer } : {}),
    });
    if (options.json) await write(`${JSON.stringify({ model: options.model, prompt, generated_text: text })}\n`);
    else await write(streaming ? '\n' : `${text}\n`);
  } finally {
    generator.dispose();
  }
}

/** A command compiles the same programs each time it runs: they are kept, where that can be done. */
function keepCompiledPrograms(configure: (options: { compileCache: boolean }) => void): void {
  try {
    configure({ compileCache: true });
  } catch {
    // a cache folder that cannot be made, or has a space in its path, costs time only
  }
}
