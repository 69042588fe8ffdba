/** `mamba2 state`: what a model has read, kept in a file; `mamba2 generate --state` goes on from it. */
import type { Command } from 'commander';
import type { StateInfo } from '../models/mamba2/index.js';
import { addModelOptions, loadModel, loadTokenizer, readPrompt, type ModelOptions } from './options.js';
import { note, table, write } from './output.js';
import { formatBytes } from './progress.js';

interface SaveOptions extends ModelOptions {
  file: string;
  from?: string;
  json?: boolean;
}

interface LoadOptions extends ModelOptions {
  file: string;
  json?: boolean;
}

export function registerState(program: Command): void {
  const state = program.command('state').description('keep what a model has read, to go on from later');
  const saving = state
    .command('save')
    .description('read a text and keep the state after it')
    .argument('[prompt...]', 'the text; without one, standard input is read');
  addModelOptions(saving);
  saving
    .requiredOption('--file <state>', 'the file to write (safetensors)')
    .option('--from <state>', 'go on from a state kept before')
    .option('--json', 'print what the file says about itself as JSON')
    .action(save);
  const loading = state.command('load').description('load a state into its model, and tell whether it fits');
  addModelOptions(loading);
  loading
    .requiredOption('--file <state>', 'a file that `mamba2 state save` wrote')
    .option('--json', 'print JSON')
    .action(load);
  state
    .command('show')
    .description('what a file of states says about itself')
    .argument('<file>', 'a file that `mamba2 state save` or /save in a chat wrote')
    .option('--json', 'print JSON')
    .action(show);
}

async function save(words: string[], options: SaveOptions): Promise<void> {
  const text = await readPrompt(words);
  const { inspectState, Mamba2State } = await import('../models/mamba2/index.js');
  const tokenizer = await loadTokenizer(options);
  const model = await loadModel(options);
  try {
    const from = options.from === undefined ? undefined : await Mamba2State.load(model, options.from);
    const onProgress = (done: number, total: number): void => {
      if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${total} tokens${done === total ? '\n' : ''}`);
    };
    const state = await model.prefill(text, { tokenizer, state: from, on_progress: onProgress });
    await state.save(options.file);
    const info = await inspectState(options.file);
    if (options.json) await print(info, true);
    else note(`${state.seen[0]} tokens kept in ${options.file} (${formatBytes(info.bytes)})`);
    state.dispose();
  } finally {
    model.dispose();
  }
}

async function load(options: LoadOptions): Promise<void> {
  const { inspectState, Mamba2State } = await import('../models/mamba2/index.js');
  const info = await inspectState(options.file);
  const model = await loadModel(options);
  try {
    const state = await Mamba2State.load(model, options.file);
    state.dispose();
  } finally {
    model.dispose();
  }
  await print(info, options.json);
  if (!options.json) await write(`\nIt is a state of ${options.model}.\n`);
}

async function show(file: string, options: { json?: boolean }): Promise<void> {
  const { inspectState } = await import('../models/mamba2/index.js');
  await print(await inspectState(file), options.json);
}

async function print(info: StateInfo, json = false): Promise<void> {
  if (json) return write(`${JSON.stringify(info, null, 2)}\n`);
  const { config } = info;
  return write(
    table([
      ['File', `${info.file}, ${formatBytes(info.bytes)}`],
      ['Tokens read', info.seen.join(', ')],
      ['Layers', config.num_hidden_layers!],
      ['Heads', `${config.num_heads} of ${config.head_dim}, state size ${config.state_size}`],
      ['Vocabulary', `${config.vocab_size} rows`],
      ['Model', `configuration ${info.config_sha256.slice(0, 16)}, weights ${info.weights_sha256.slice(0, 16)}`],
      ...Object.entries(info.extra).map(([key, value]) => [key, value.slice(0, 200)] as const),
    ]),
  );
}
