/** Options that several commands share, and how their values are read. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { ArgumentError } from '../base/errors.js';
import type { Mamba2ForCausalLM, ProgramDtype } from '../models/mamba2/index.js';
import { DEVICES, type Device } from '../base/devices.js';

/** A parser of numbers within bounds, for commander: a wrong one is wrong usage, told before anything is loaded. */
export function numberIn(bounds: { min?: number; max?: number; above?: number; whole?: boolean }) {
  const { min, max, above, whole } = bounds;
  const expected = [
    whole ? 'a whole number' : 'a number',
    ...(min === undefined ? [] : [`from ${min}`]),
    ...(above === undefined ? [] : [`above ${above}`]),
    ...(max === undefined ? [] : [`up to ${max}`]),
  ].join(' ');
  return (text: string): number => {
    const value = text.trim() === '' ? NaN : Number(text);
    const ok =
      Number.isFinite(value) &&
      (!whole || Number.isSafeInteger(value)) &&
      value >= (min ?? -Infinity) &&
      value > (above ?? -Infinity) &&
      value <= (max ?? Infinity);
    if (!ok) throw new InvalidArgumentError(`Expected ${expected}.`);
    return value;
  };
}

/** What from_pretrained() takes as dtype. */
const DTYPES: readonly ProgramDtype[] = ['auto', 'float32', 'bfloat16'];

export interface ModelOptions {
  model: string;
  device: Device;
  dtype?: string;
  engine?: string;
  stateDtype?: string;
}

/** `--model --device --dtype --engine --state-dtype`. */
export function addModelOptions(command: Command): Command {
  return command
    .requiredOption('--model <dir>', 'folder of the model: config.json, weights, tokenizer')
    .addOption(new Option('--device <device>', 'where to run').choices(DEVICES).default('auto'))
    .addOption(
      new Option(
        '--dtype <type>',
        'how to hold the matrices (default: bfloat16 where the checkpoint has it, else float32)',
      ).choices(DTYPES),
    )
    .addOption(new Option('--engine <engine>', 'op by op, or compiled by XLA').choices(['auto', 'eager', 'compiled']))
    .addOption(
      new Option(
        '--state-dtype <type>',
        'how to hold states between tokens (default: float32; bfloat16 is faster on a GPU)',
      ).choices(['float32', 'bfloat16']),
    );
}

/** What these options stand for when a model is loaded. */
export function loadingOptions({
  device,
  dtype,
  engine,
  stateDtype,
}: ModelOptions): Record<string, string | undefined> {
  return { device, dtype, engine, state_dtype: stateDtype };
}

export interface SamplingOptions {
  maxNewTokens: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
}

/** `--max-new-tokens --temperature --top-k --top-p --min-p --repetition-penalty --seed`. */
export function addSamplingOptions(command: Command, maxNewTokens: number): Command {
  return command
    .option('--max-new-tokens <n>', 'most tokens to write', numberIn({ min: 1, whole: true }), maxNewTokens)
    .option('--temperature <t>', 'sample: below 1 bolder, above 1 wilder; 0 takes the best', numberIn({ min: 0 }))
    .option('--top-k <k>', 'sample from the k best; 0 for all', numberIn({ min: 0, whole: true }))
    .option('--top-p <p>', 'sample from the best with this probability together', numberIn({ min: 0, max: 1 }))
    .option('--min-p <p>', 'sample from those this fraction as likely as the best', numberIn({ min: 0, max: 1 }))
    .option('--repetition-penalty <r>', 'above 1 discourages tokens that occurred', numberIn({ above: 0 }))
    .option('--seed <n>', 'sample, the same each time', numberIn({ min: 0, whole: true }));
}

/** The options of generate() that these stand for. Whatever speaks of sampling turns it on. */
export function samplingOptions(options: SamplingOptions): Record<string, number | boolean> {
  const { maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, seed } = options;
  const draws = [temperature, topK, topP, minP, seed].some((value) => value !== undefined);
  const result: Record<string, number | boolean> = { max_new_tokens: maxNewTokens };
  if (repetitionPenalty !== undefined) result.repetition_penalty = repetitionPenalty;
  if (!draws) return result;
  if (temperature === 0) return { ...result, do_sample: false };
  const given = { temperature, top_k: topK, top_p: topP, min_p: minP, seed };
  for (const [key, value] of Object.entries(given)) if (value !== undefined) result[key] = value;
  return { ...result, do_sample: true };
}

/**
 * The prompt: the arguments joined by spaces, else standard input without its last line end.
 *
 * @throws ArgumentError when there is neither
 */
export async function readPrompt(words: readonly string[]): Promise<string> {
  if (words.length) return words.join(' ');
  if (process.stdin.isTTY) {
    throw new ArgumentError(
      'No prompt: give one as an argument, or on standard input (echo "Once" | mamba2 generate …).',
    );
  }
  const text = await readInput();
  if (text === '') throw new ArgumentError('The prompt on standard input is empty.');
  return text;
}

/** As readPrompt(), where there may be none: empty then, and at a terminal. */
export async function readContinuation(words: readonly string[]): Promise<string> {
  if (words.length) return words.join(' ');
  return process.stdin.isTTY ? '' : readInput();
}

async function readInput(): Promise<string> {
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const piece of process.stdin) text += piece as string;
  return text.replace(/\r?\n$/, '');
}

/** A command compiles the same programs each time it runs: they are kept, where that can be done. */
export async function keepCompiledPrograms(): Promise<void> {
  const { configureRuntime } = await import('../runtime/environment.js');
  try {
    configureRuntime({ compileCache: true });
  } catch {
    // a cache folder that cannot be made, or has a space in its path, costs time only
  }
}

/** The model that the options name, whose compiled programs are kept. */
export async function loadModel(options: ModelOptions): Promise<Mamba2ForCausalLM> {
  await keepCompiledPrograms();
  const { AutoModelForCausalLM } = await import('../models/auto/index.js');
  return AutoModelForCausalLM.from_pretrained(options.model, loadingOptions(options));
}
