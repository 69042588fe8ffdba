/**
 * Does a checkpoint hold the model that its configuration describes? Names, shapes and dtypes are compared before any
 * weight is used: a missing tensor is never initialised at random, a contradiction never resolved by guessing.
 */
import * as path from 'node:path';
import { equalBytes } from '../base/bytes.js';
import { CheckpointError } from '../base/errors.js';
import { isFloatDtype } from '../base/stored_dtypes.js';
import type { ModelFormat } from './model_format.js';
import type { CheckpointSource } from './source.js';
import { plain } from '../base/quote.js';

/** What validateCheckpoint found out beside "all is well". */
export interface CheckpointReport {
  /** true when the head is the embedding matrix and a head of its own, if stored, is to be ignored */
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
  model: ModelFormat,
  source: Pick<CheckpointSource, 'config' | 'dir' | 'tensors'>,
  options: ValidateOptions = {},
): Disagreement[] {
  const problems: Disagreement[] = [];
  const expected = model.expectedTensors(source.config, path.join(source.dir, 'config.json'));
  const { embedding, head } = model.names;
  // a tied head may be stored all the same
  const optional = new Map<string, number[]>();
  if (!expected.has(head)) optional.set(head, expected.get(embedding)!);
  for (const [name, shape] of [...expected, ...optional]) {
    const info = source.tensors.get(name);
    if (options.replaced?.(name) || (!info && optional.has(name))) continue;
    const asked = `[${shape.join(', ')}]`;
    if (!info) problems.push({ tensor: name, what: `${plain(name)} is missing (expected shape ${asked})` });
    else if (info.shape.join() !== shape.join())
      problems.push({
        tensor: name,
        what: `${plain(name)} in ${info.file} has shape [${info.shape.join(', ')}]; config.json asks for ${asked}`,
      });
    else if (!isFloatDtype(info.dtype))
      problems.push({
        tensor: name,
        what: `${plain(name)} in ${info.file} is stored as ${info.dtype}; F32, F16, BF16 or F64 was expected`,
      });
  }
  for (const [name, info] of source.tensors)
    if (!expected.has(name) && !optional.has(name) && !options.allow?.(name))
      problems.push({
        tensor: name,
        what: `${plain(name)} in ${info.file} has no place in the model that config.json describes`,
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
    if (!equalBytes(piece, value)) return false;
  }
  return true;
}

/**
 * Compares a checkpoint with its configuration, and decides whether the head is tied.
 *
 * With `tie_word_embeddings: true` and a head in the file, the two matrices are compared: some versions of
 * transformers did not tie, so the stored head may have diverged. It then wins, with a warning.
 * @throws CheckpointError listing what is missing, misshapen, unexpected or not of a floating dtype; ConfigError when the
 *   configuration contradicts itself
 */
export async function validateCheckpoint(
  model: ModelFormat,
  source: CheckpointSource,
  options: ValidateOptions = {},
): Promise<CheckpointReport> {
  const { embedding, head } = model.names;
  const problems = findDisagreements(model, source, options);
  if (problems.length > 0) throw disagreement(source, problems);
  if (source.config.tie_word_embeddings !== true) return { tied: false, warnings: [] };
  if (!source.tensors.has(head) || options.replaced?.(head)) return { tied: true, warnings: [] };
  if (await sameBytes(source, embedding, head)) return { tied: true, warnings: [] };
  return {
    tied: false,
    warnings: [
      `${source.dir}: config.json ties the head to the embeddings, but ${head} differs from them; the stored head is used, untied.`,
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
