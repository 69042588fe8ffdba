/** `mamba2 eval perplexity`: how well a model predicts a text. */
import type { Command } from 'commander';
import { ArgumentError } from '../base/errors.js';
import { readTextFile } from '../base/text_files.js';
import { addModelOptions, loadModel, loadTokenizer, numberIn, type ModelOptions } from './options.js';
import { note, table, write } from './output.js';

interface Options extends ModelOptions {
  file: string;
  maxTokens?: number;
  json?: boolean;
}

export function registerEval(program: Command): void {
  const command = program.command('eval').description('measure a model');
  const measure = command.command('perplexity').description('how well a model predicts a text: lower is better');
  addModelOptions(measure);
  measure
    .requiredOption('--file <text>', 'a text in UTF-8, of any length')
    .option('--max-tokens <n>', 'the first so many tokens only', numberIn({ min: 2, whole: true }))
    .option('--json', 'print one line of JSON')
    .action(evalPerplexity);
}

async function evalPerplexity(options: Options): Promise<void> {
  const text = await readTextFile(options.file, ArgumentError);
  const { perplexity } = await import('../pipelines/index.js');
  const tokenizer = await loadTokenizer(options);
  const ids = (await tokenizer.encode(text)).slice(0, options.maxTokens);
  const model = await loadModel(options);
  try {
    const started = performance.now();
    const onProgress = (done: number, total: number): void => {
      if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${total} tokens${done === total ? '\n' : ''}`);
    };
    const { tokens, mean_nll, perplexity: value } = await perplexity(model, ids, { on_progress: onProgress });
    const seconds = (performance.now() - started) / 1000;
    if (options.json) {
      const { model: name, file } = options;
      const times = { seconds, tokens_per_second: tokens / seconds };
      await write(`${JSON.stringify({ model: name, file, tokens, mean_nll, perplexity: value, ...times })}\n`);
      return;
    }
    note(`${(tokens / seconds).toFixed(0)} tokens per second`);
    await write(
      table([
        ['perplexity', value.toFixed(4)],
        ['nats per token', mean_nll.toFixed(6)],
        ['tokens predicted', String(tokens)],
      ]),
    );
  } finally {
    model.dispose();
  }
}
