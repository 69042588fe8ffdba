/**
 * Writing a model folder in Hugging Face's layout: model.safetensors, or shards with an index, config.json and any
 * other text files. Everything is written aside first and renamed when all of it is whole, config.json last.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { ArgumentError } from '../base/errors.js';
import { stringifyConfigJson } from './config_json.js';
import { type AtomicFile, saveError, writeAside, writeTogether } from '../base/whole_files.js';
import {
  plan,
  storageOrder,
  writeSafetensorsAside,
  type PlannedTensor,
  type SaveProgress,
} from './safetensors_writer.js';
import type { OutTensor } from './source.js';
import { quote } from '../base/quote.js';
import { SAVE_TABLE } from './save_options.js';

/** Options of saveCheckpoint. */
export interface SaveCheckpointOptions {
  /** largest file of weights, bytes or a string such as '5GB' (10⁹) or '2GiB' (2³⁰); default '5GB' */
  max_shard_size?: number | string;
  /** `__metadata__` of the safetensors files; default {format: 'pt'}, which transformers expects */
  metadata?: Record<string, string>;
  /** further files by name: tokenizer.json, generation_config.json … */
  extra_files?: Record<string, string | Uint8Array>;
  /** true writes Infinity in config.json as transformers 4.x does */
  legacy_json?: boolean;
  signal?: AbortSignal;
  on_progress?: (progress: SaveProgress) => void;
}

/** Bytes of '500MB', '5GB', '2GiB' or a number. @throws ArgumentError */
export function parseSize(size: number | string, option = 'max_shard_size'): number {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*$/i.exec(String(size));
  const bytes = found
    ? Math.floor(Number(found[1]) * (found[3] ? 1024 : 1000) ** ' KMGT'.indexOf(found[2]!.toUpperCase() || ' '))
    : NaN;
  if (!Number.isSafeInteger(bytes) || bytes <= 0)
    throw new ArgumentError(`${option} is ${quote(size)}; expected a number of bytes or a size such as "5GB".`, {
      option,
      got: size,
    });
  return bytes;
}

/** Fills shards in the given order; a tensor larger than the limit has a shard of its own. */
function intoShards(planned: readonly PlannedTensor[], limit: number): PlannedTensor[][] {
  const shards: PlannedTensor[][] = [];
  let room = -1;
  for (const part of planned) {
    if (part.bytes > room || shards.length === 0) {
      shards.push([]);
      room = limit;
    }
    shards.at(-1)!.push(part);
    room -= part.bytes;
  }
  return shards.length > 0 ? shards : [[]];
}

const INDEX = 'model.safetensors.index.json';

/** Names of weight files that an earlier save may have left and that would be read beside or instead of the new ones. */
const WEIGHT_FILE =
  /^(model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|pytorch_model.*\.bin(\.index\.json)?)$/;

/** Writes further files of a model folder aside. */
export async function writeExtraFiles(
  dir: string,
  files: Readonly<Record<string, string | Uint8Array>>,
  aside: AtomicFile[],
): Promise<void> {
  for (const [name, data] of Object.entries(files)) {
    const file = path.join(dir, name);
    // one of a folder within, such as additional_chat_templates/tools.jinja
    await fs.promises.mkdir(path.dirname(file), { recursive: true });
    aside.push(await writeAside(file, data));
  }
}

/**
 * Writes a model folder that transformers and openCheckpoint() can load.
 *
 * Tensors are described first and their bytes asked for one at a time, so that a model larger than memory can be
 * written. Weight files of an earlier save in the same folder are replaced; other files are left alone.
 * @param dir folder, made when it is not there
 * @param config Hugging Face's config.json
 * @throws SaveError (disk full, not writable), ArgumentError (max_shard_size), or what a tensor's data() throws; none of
 *   the new files then carries its final name
 * @example await saveCheckpoint('out', source.config, tensors, { max_shard_size: '2GB' })
 */
export async function saveCheckpoint(
  dir: string,
  config: Record<string, unknown>,
  tensors: Iterable<OutTensor> | AsyncIterable<OutTensor>,
  options: SaveCheckpointOptions = {},
): Promise<void> {
  SAVE_TABLE.check(options);
  const limit = parseSize(options.max_shard_size ?? '5GB');
  const metadata = options.metadata ?? { format: 'pt' };
  const planned: PlannedTensor[] = [];
  for await (const tensor of tensors) planned.push(plan(tensor));
  const total = planned.reduce((sum, { bytes }) => sum + bytes, 0);
  const shards = intoShards(planned, limit);
  const single = shards.length === 1;
  const number = (i: number): string => String(i).padStart(5, '0');
  const name = (i: number): string =>
    single ? 'model.safetensors' : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
  try {
    await fs.promises.mkdir(dir, { recursive: true });
  } catch (error) {
    throw saveError(dir, error);
  }

  const current = new Set<string>();
  await writeTogether(async (aside) => {
    let written = 0;
    const onTensor = ({ tensor, bytes }: PlannedTensor): void => {
      written += bytes;
      options.on_progress?.({ written, total, tensor: tensor.name });
    };
    for (const [i, shard] of shards.entries()) {
      const signal = options.signal;
      aside.push(
        await writeSafetensorsAside(path.join(dir, name(i)), storageOrder(shard), { metadata, signal, onTensor }),
      );
    }
    if (!single) {
      const map = shards.flatMap((shard, i) => shard.map(({ tensor }) => [tensor.name, name(i)] as const));
      const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(map) };
      aside.push(await writeAside(path.join(dir, INDEX), JSON.stringify(index, null, 2) + '\n'));
    }
    await writeExtraFiles(dir, options.extra_files ?? {}, aside);
    const text = stringifyConfigJson(config, { legacy_json: options.legacy_json });
    aside.push(await writeAside(path.join(dir, 'config.json'), text));
    options.signal?.throwIfAborted();
    // Shards get their names one after the other. Without an index a process that is killed in between leaves no model, rather than one of
    // an earlier save's shards and of this one's.
    if (!single) await fs.promises.rm(path.join(dir, INDEX), { force: true });
    for (const file of aside) current.add(path.basename(file.path));
  });
  for (const file of await fs.promises.readdir(dir))
    if (WEIGHT_FILE.test(file) && !current.has(file)) await fs.promises.rm(path.join(dir, file), { force: true });
}
