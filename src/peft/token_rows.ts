/** PEFT's trainable tokens: rows of an embedding or a head that an adapter's file replaces (peft/tuners/trainable_tokens). */
import { CheckpointError, ConfigError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { plain, quote } from '../base/quote.js';
import { isStored } from '../layers/weights.js';
import type { PeftModel } from './model.js';

/** Ids by the module whose rows they are; '' is the embedding. */
export type TokenIndices = ReadonlyMap<string, readonly number[]>;

const DELTA = '.token_adapter.trainable_tokens_delta';
const ids = kinds.listOf(kinds.integer({ min: 0 }), 'ids');

/**
 * What adapter_config.json says of them.
 * @param value of trainable_token_indices: ids of the embedding, or ids by module @throws ConfigError
 */
export function tokenIndices(value: unknown, file: string): TokenIndices {
  if (value === null || value === undefined) return new Map();
  if (ids.ok(value)) return new Map([['', value as number[]]]);
  if (kinds.isPlain(value) && Object.values(value).every((list) => ids.ok(list)))
    return new Map(Object.entries(value as Record<string, number[]>));
  throw new ConfigError(`${file}: trainable_token_indices is ${quote(value)}, expected ids, or ids by module`, {
    file,
  });
}

/**
 * Takes the rows out of an adapter's values and puts them into copies of the base's matrices.
 * @param values by key; those of rows are taken out
 * @returns matrices by the base's names
 * @throws CheckpointError for rows that do not fit the base, and for a tied model whose head would have others than its embedding
 */
export function takeTokenRows(
  dir: string,
  values: Map<string, { shape: readonly number[]; data: Float32Array }>,
  indices: TokenIndices,
  peft: PeftModel,
): Map<string, Float32Array> {
  const { names, config } = peft.base_model.network;
  const matrices = new Map<string, Float32Array>();
  for (const [key, { shape, data }] of [...values]) {
    if (!key.endsWith(DELTA)) continue;
    const module = key.slice(0, -DELTA.length);
    const name = `${module}.weight`;
    const fault = (what: string): CheckpointError =>
      new CheckpointError(`${dir}: '${plain(key)}' ${what}`, { dir, key });
    if (config.tie_word_embeddings && name === names.head)
      throw fault(
        'has rows of a head that is tied to the embedding, which would then be two matrices: that is not supported. Train the same trainable_token_indices of both.',
      );
    const base = peft.frozen()[name];
    if (!base) throw fault('is of a module that this model does not have.');
    if (isStored(base)) throw fault('replaces rows of a quantised matrix. Load the base in float32.');
    const [vocabulary, width] = base.shape as [number, number];
    const rows = idsOf(module, indices, name === names.embedding);
    if (!rows) throw fault('is of a module that trainable_token_indices does not name.');
    if (shape.join() !== [rows.length, width].join())
      throw fault(`has shape [${shape.join(', ')}]; expected [${rows.length}, ${width}].`);
    const wrong = rows.find((id) => id >= vocabulary);
    if (wrong !== undefined)
      throw fault(`is of the id ${wrong}, and this base model has ${vocabulary}: resize it as it was for training.`);
    const matrix = base.dataSync<'float32'>().slice();
    rows.forEach((id, i) => matrix.set(data.subarray(i * width, (i + 1) * width), id * width));
    matrices.set(name, matrix);
    values.delete(key);
  }
  return matrices;
}

/** The ids of a module, which is named by the end of its name. */
function idsOf(module: string, indices: TokenIndices, embedding: boolean): readonly number[] | undefined {
  const named = [...indices].find(([name]) => module === name || module.endsWith(`.${name}`))?.[1];
  return named ?? (embedding ? indices.get('') : undefined);
}
