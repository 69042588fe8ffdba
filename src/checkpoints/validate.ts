/**
 * Does a checkpoint hold the model that its configuration describes? Names, shapes and dtypes are compared before any
 * weight is used: a missing tensor is never initialised at random, a contradiction never resolved by guessing.
 */
import * as path from 'node:path';
import { CheckpointError, ConfigError } from '../base/errors.js';
import { isFloatDtype } from '../base/stored_dtypes.js';
import type { CheckpointSource } from './source.js';

/** Sizes of a Mamba-2, from a configuration in Hugging Face's keys. */
export interface Dimensions {
  readonly layers: number;
  readonly hidden: number;
  readonly vocab: number;
  readonly inner: number;
  readonly heads: number;
  readonly head_dim: number;
  readonly groups: number;
  readonly state: number;
  readonly kernel: number;
  readonly conv_dim: number;
  readonly projection: number;
  readonly use_bias: boolean;
  readonly use_conv_bias: boolean;
  readonly tied: boolean;
}

/** Defaults of transformers' Mamba2Config for keys that a config.json leaves out. */
const DEFAULTS = {
  num_hidden_layers: 64,
  hidden_size: 4096,
  vocab_size: 32768,
  num_heads: 128,
  head_dim: 64,
  n_groups: 8,
  state_size: 128,
  conv_kernel: 4,
  expand: 2,
} as const;

/**
 * The sizes that a configuration declares.
 * @param file where it is from, for messages
 * @throws ConfigError when one is not a positive whole number, or they contradict each other
 */
export function dimensionsOf(config: Record<string, unknown>, file = 'config.json'): Dimensions {
  const size = (key: keyof typeof DEFAULTS): number => {
    const value = config[key] ?? DEFAULTS[key];
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value;
    throw new ConfigError(`${file}: ${key} is ${JSON.stringify(value)}; expected a positive whole number.`, {
      option: key,
      got: value,
    });
  };
  const hidden = size('hidden_size');
  const expand = config.expand ?? DEFAULTS.expand;
  if (typeof expand !== 'number' || !(expand > 0))
    throw new ConfigError(`${file}: expand is ${JSON.stringify(expand)}; expected a positive number.`, {
      option: 'expand',
      got: expand,
    });
  const inner = Math.trunc(expand * hidden);
  const [heads, headDim, groups, state] = [size('num_heads'), size('head_dim'), size('n_groups'), size('state_size')];
  if (heads * headDim !== inner)
    throw new ConfigError(
      `${file}: num_heads ${heads} × head_dim ${headDim} is ${heads * headDim}; expand ${expand} × hidden_size ${hidden} is ${inner}. They must be equal.`,
      { option: 'num_heads', got: heads * headDim, expected: inner },
    );
  if (heads % groups !== 0)
    throw new ConfigError(`${file}: num_heads ${heads} is not a multiple of n_groups ${groups}.`, {
      option: 'n_groups',
      got: groups,
    });
  const flag = (key: string, otherwise: boolean): boolean => {
    const value = config[key] ?? otherwise;
    if (typeof value === 'boolean') return value;
    throw new ConfigError(`${file}: ${key} is ${JSON.stringify(value)}; expected true or false.`, {
      option: key,
      got: value,
    });
  };
  const convDim = inner + 2 * groups * state;
  return {
    layers: size('num_hidden_layers'),
    hidden,
    vocab: size('vocab_size'),
    inner,
    heads,
    head_dim: headDim,
    groups,
    state,
    kernel: size('conv_kernel'),
    conv_dim: convDim,
    projection: inner + convDim + heads,
    use_bias: flag('use_bias', false),
    use_conv_bias: flag('use_conv_bias', true),
    tied: flag('tie_word_embeddings', false),
  };
}

/**
 * Every tensor of the model that a configuration describes, with its shape. A tied head is not among them.
 * @throws ConfigError when the configuration contradicts itself
 */
export function expectedTensors(config: Record<string, unknown>, file?: string): Map<string, number[]> {
  const d = dimensionsOf(config, file);
  const out = new Map<string, number[]>([['backbone.embeddings.weight', [d.vocab, d.hidden]]]);
  for (let i = 0; i < d.layers; i++) {
    const layer = `backbone.layers.${i}`;
    out.set(`${layer}.norm.weight`, [d.hidden]);
    out.set(`${layer}.mixer.in_proj.weight`, [d.projection, d.hidden]);
    if (d.use_bias) out.set(`${layer}.mixer.in_proj.bias`, [d.projection]);
    out.set(`${layer}.mixer.conv1d.weight`, [d.conv_dim, 1, d.kernel]);
    if (d.use_conv_bias) out.set(`${layer}.mixer.conv1d.bias`, [d.conv_dim]);
    for (const name of ['dt_bias', 'A_log', 'D']) out.set(`${layer}.mixer.${name}`, [d.heads]);
    out.set(`${layer}.mixer.norm.weight`, [d.inner]);
    out.set(`${layer}.mixer.out_proj.weight`, [d.hidden, d.inner]);
    if (d.use_bias) out.set(`${layer}.mixer.out_proj.bias`, [d.hidden]);
  }
  out.set('backbone.norm_f.weight', [d.hidden]);
  if (!d.tied) out.set('lm_head.weight', [d.vocab, d.hidden]);
  return out;
}

/** What validateCheckpoint found out beside "all is well". */
export interface CheckpointReport {
  /** true when the head is the embedding matrix and lm_head.weight, if stored, is to be ignored */
  readonly tied: boolean;
  /** things worth telling the user, in full sentences */
  readonly warnings: readonly string[];
}

/** What may differ from a plain model. */
export interface ValidateOptions {
  /** tensors that are allowed although no plain model has them (adapters, packed weights) */
  allow?: (name: string) => boolean;
  /** tensors that may be absent, or have another dtype or shape (stored in a quantised form) */
  replaced?: (name: string) => boolean;
}

/** A tensor that does not fit, and how. */
export interface Disagreement {
  readonly tensor: string;
  readonly what: string;
}

/**
 * Compares names, shapes and dtypes with the configuration; reads no weights.
 * @returns what does not fit, in the order of the model; empty when all does
 * @throws ConfigError when the configuration contradicts itself
 */
export function findDisagreements(
  source: Pick<CheckpointSource, 'config' | 'dir' | 'tensors'>,
  options: ValidateOptions = {},
): Disagreement[] {
  const problems: Disagreement[] = [];
  const expected = expectedTensors(source.config, path.join(source.dir, 'config.json'));
  // a tied head may be stored all the same
  const optional = new Map<string, number[]>();
  if (!expected.has('lm_head.weight')) optional.set('lm_head.weight', expected.get('backbone.embeddings.weight')!);
  for (const [name, shape] of [...expected, ...optional]) {
    const info = source.tensors.get(name);
    if (options.replaced?.(name) || (!info && optional.has(name))) continue;
    const asked = `[${shape.join(', ')}]`;
    if (!info) problems.push({ tensor: name, what: `${name} is missing (expected shape ${asked})` });
    else if (info.shape.join() !== shape.join())
      problems.push({
        tensor: name,
        what: `${name} in ${info.file} has shape [${info.shape.join(', ')}]; config.json asks for ${asked}`,
      });
    else if (!isFloatDtype(info.dtype))
      problems.push({
        tensor: name,
        what: `${name} in ${info.file} is stored as ${info.dtype}; F32, F16, BF16 or F64 was expected`,
      });
  }
  for (const [name, info] of source.tensors)
    if (!expected.has(name) && !optional.has(name) && !options.allow?.(name))
      problems.push({
        tensor: name,
        what: `${name} in ${info.file} has no place in the model that config.json describes`,
      });
  return problems;
}

/** Are two tensors the same bytes? Read in pieces. */
async function sameBytes(source: CheckpointSource, a: string, b: string): Promise<boolean> {
  const [left, right] = [source.tensors.get(a)!, source.tensors.get(b)!];
  if (left.dtype !== right.dtype || left.bytes !== right.bytes) return false;
  const other = source.readSlices(b)[Symbol.asyncIterator]();
  for await (const piece of source.readSlices(a)) {
    const { value } = (await other.next()) as { value: Uint8Array };
    if (Buffer.compare(piece, value) !== 0) return false;
  }
  return true;
}

/**
 * Compares a checkpoint with its configuration, and decides whether the head is tied.
 *
 * With `tie_word_embeddings: true` and an lm_head.weight in the file, the two matrices are compared: some versions of
 * transformers did not tie, so the stored head may have diverged. It then wins, with a warning.
 * @throws CheckpointError listing what is missing, misshapen, unexpected or not of a floating dtype; ConfigError when the
 *   configuration contradicts itself
 */
export async function validateCheckpoint(
  source: CheckpointSource,
  options: ValidateOptions = {},
): Promise<CheckpointReport> {
  const problems = findDisagreements(source, options);
  if (problems.length > 0) throw disagreement(source, problems);
  if (source.config.tie_word_embeddings !== true) return { tied: false, warnings: [] };
  if (!source.tensors.has('lm_head.weight') || options.replaced?.('lm_head.weight'))
    return { tied: true, warnings: [] };
  if (await sameBytes(source, 'backbone.embeddings.weight', 'lm_head.weight')) return { tied: true, warnings: [] };
  return {
    tied: false,
    warnings: [
      `${source.dir}: config.json ties the head to the embeddings, but lm_head.weight differs from them; the stored head is used, untied.`,
    ],
  };
}

function disagreement(source: CheckpointSource, problems: readonly Disagreement[]): CheckpointError {
  const shown = problems.slice(0, 8).map(({ what }) => `- ${what}`);
  if (problems.length > shown.length) shown.push(`- and ${problems.length - shown.length} more`);
  return new CheckpointError(
    `${source.dir}: the weights and config.json disagree:\n${shown.join('\n')}\nUse the config.json that belongs to these weights, or fetch the folder again.`,
    { file: source.dir, tensor: problems[0]!.tensor, tensors: problems.map(({ tensor }) => tensor) },
  );
}
