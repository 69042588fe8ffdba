/** Options that several commands share, and how their values are read. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { ArgumentError } from '../base/errors.js';
import { computeDtypeKind, computeDtypeOf, type DtypeLike } from '../base/compute_dtypes.js';
import {
  deviceKind,
  type DeviceLike,
  type DeviceMap,
  deviceMapKind,
  DEVICES,
  type MaxMemory,
} from '../base/devices.js';
import { omit } from '../base/omit.js';
import type { Kind } from '../base/option_kinds.js';
import type { HubOptions } from '../checkpoints/hub_options.js';
import type { EngineKind, Mamba2ForCausalLM, PretrainedOptions } from '../models/mamba2/index.js';
import type { Tokenizer } from '../tokenizers/index.js';

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

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** A number of bytes: 1048576, 512M, 1.5G. */
export function bytesFrom(text: string): number {
  const [, digits, unit] = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text) ?? [];
  if (digits === undefined) throw new InvalidArgumentError('Expected a number of bytes, such as 512M or 4G.');
  return Math.floor(Number(digits) * UNITS[unit!.toLowerCase()]!);
}

/** Reads a value by the kind that the function behind it takes: told as wrong usage, before anything is loaded. */
function read<T>(kind: Kind, value: (text: string) => T): (text: string) => T {
  return (text) => {
    if (kind.ok(value(text))) return value(text);
    throw new InvalidArgumentError(`Expected ${kind.expected}.`);
  };
}

/** A device: a GPU's number is a number. */
export const deviceFrom = read(deviceKind, (text) => (/^-?\d+$/.test(text) ? Number(text) : text) as DeviceLike);
const deviceMapFrom = read(deviceMapKind, (text) => {
  if (/^-?\d+$/.test(text)) return Number(text);
  if (!text.trim().startsWith('{')) return text as DeviceMap;
  try {
    return JSON.parse(text) as DeviceMap;
  } catch (error) {
    throw new InvalidArgumentError(`Expected JSON, such as '{"backbone": 0, "lm_head": 1}': ${(error as Error).message}.`); // prettier-ignore
  }
});

/** Memory by device: 0=10GB,1=20GiB. What are devices and sizes is judged where a model is loaded. */
function maxMemoryFrom(text: string): MaxMemory {
  const pairs = text.split(',').map((pair) => /^\s*([^=\s]+)\s*=\s*(\S+)\s*$/.exec(pair));
  const wrong = pairs.some((pair) => pair === null);
  if (wrong) throw new InvalidArgumentError('Expected devices and sizes, such as 0=10GB,1=20GB.');
  return Object.fromEntries(pairs.map((pair) => [pair![1]!, pair![2]!]));
}

/** A number of devices, or all. */
function tensorParallelFrom(text: string): number | 'auto' {
  return text === 'auto' ? text : numberIn({ min: 1, whole: true })(text);
}

const dtypeFrom = read(computeDtypeKind, (text) => text as DtypeLike);

/** The types of states, by any of their names. */
function stateDtypeFrom(text: string): 'float32' | 'bfloat16' {
  const dtype = computeDtypeOf(text);
  if (dtype === 'float32' || dtype === 'bfloat16') return dtype;
  throw new InvalidArgumentError('Expected float32 or bfloat16.');
}

export interface ModelOptions {
  model: string;
  tokenizer?: string;
  device?: DeviceLike;
  deviceMap?: DeviceMap;
  maxMemory?: MaxMemory;
  tensorParallel?: number | 'auto';
  dtype?: DtypeLike;
  torchDtype?: DtypeLike;
  engine?: EngineKind;
  stateDtype?: 'float32' | 'bfloat16';
  products?: 'auto' | 'float32' | 'bfloat16';
  revision?: string;
  cacheDir?: string;
  localFilesOnly?: boolean;
}

/** `--model --tokenizer --device --dtype --engine …`. */
export function addModelOptions(command: Command): Command {
  return command
    .requiredOption('--model <name>', 'folder of the model (config.json, weights, tokenizer), or a name on the hub')
    .option('--tokenizer <name>', 'a tokenizer apart: its folder, or a repository of the hub (default: the model’s)')
    .option(
      '--device <device>',
      `where to run: ${DEVICES.join(', ')}, cuda, cuda:1, or the number of a GPU (default: auto)`,
      deviceFrom,
    )
    .option(
      '--device-map <map>',
      'where layers lie: auto, balanced, balanced_low_0, sequential, a device, or a record of modules and devices as JSON',
      deviceMapFrom,
    )
    .option(
      '--max-memory <sizes>',
      'most memory of each device for weights with --device-map: 0=10GB,1=20GB',
      maxMemoryFrom,
    )
    .option(
      '--tensor-parallel <devices>',
      'split every layer over so many GPUs (auto: over all); without GPUs over logical devices of the processor',
      tensorParallelFrom,
    )
    .option(
      '--dtype <type>',
      'how to hold the matrices: auto, float32 or bfloat16 (default: bfloat16 where the checkpoint has it, else float32)',
      dtypeFrom,
    )
    .option('--torch-dtype <type>', 'the same by its name in transformers', dtypeFrom)
    .addOption(new Option('--engine <engine>', 'op by op, or compiled by XLA').choices(['auto', 'eager', 'compiled']))
    .option(
      '--state-dtype <type>',
      'how to hold states between tokens: float32 or bfloat16 (default: float32; bfloat16 is faster on a GPU)',
      stateDtypeFrom,
    )
    .addOption(
      new Option('--products <type>', 'how a CPU multiplies by bfloat16 matrices: prompts in bfloat16, all in float32 or all in bfloat16 (default: auto)') // prettier-ignore
        .choices(['auto', 'float32', 'bfloat16']),
    )
    .option('--revision <revision>', 'branch, tag or commit on the hub (default: main)')
    .option('--cache-dir <dir>', 'folder of the hub’s cache (default: as huggingface_hub)')
    .option('--local-files-only', 'never use the network');
}

/** What these options stand for on the hub. */
export function hubOptions({ revision, cacheDir, localFilesOnly }: ModelOptions): HubOptions {
  return {
    ...(revision !== undefined && { revision }),
    ...(cacheDir !== undefined && { cache_dir: cacheDir }),
    ...(localFilesOnly !== undefined && { local_files_only: localFilesOnly }),
  };
}

/** What these options stand for when a model is loaded. */
export function loadingOptions(options: ModelOptions): PretrainedOptions {
  const { device, deviceMap, maxMemory, tensorParallel, dtype, torchDtype, engine, stateDtype, products } = options;
  const given = {
    device,
    device_map: deviceMap,
    max_memory: maxMemory,
    tp_plan: tensorParallel === undefined ? undefined : ('auto' as const),
    tp_size: tensorParallel === 'auto' ? undefined : tensorParallel,
    dtype,
    torch_dtype: torchDtype,
    engine,
    state_dtype: stateDtype,
    products,
  };
  if (device === undefined && deviceMap === undefined) given.device = 'auto';
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...(Object.fromEntries(set) as PretrainedOptions), ...hubOptions(options) };
}

/** The tokenizer that the options name: the model's, or one apart. */
export async function loadTokenizer(options: ModelOptions): Promise<Tokenizer> {
  const { AutoTokenizer } = await import('../models/auto/index.js');
  if (options.tokenizer === undefined) return AutoTokenizer.from_pretrained(options.model, hubOptions(options));
  // a repository apart has revisions of its own
  return AutoTokenizer.from_pretrained(options.tokenizer, omit(hubOptions(options), 'revision'));
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
    .option('--temperature <t>', 'sample: below 1 more careful, above 1 bolder; 0 takes the best', numberIn({ min: 0 }))
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
