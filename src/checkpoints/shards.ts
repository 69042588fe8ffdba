/**
 * Checkpoints of several files: the index (`model.safetensors.index.json`: `weight_map`, tensor name to file) is read,
 * checked against what the files hold, and written.
 */
import * as path from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { joinContainers, type Container, type ContainerTensor } from './container.js';
import { readTextIfThere } from '../base/files.js';
import { SafetensorsFile } from './safetensors.js';
import { plain, quote } from '../base/quote.js';

/** A safetensors file as a container. */
export async function openSafetensorsContainer(path: string): Promise<Container> {
  return safetensorsContainer(await SafetensorsFile.open(path));
}

/** An open safetensors file as a container. */
export function safetensorsContainer(file: SafetensorsFile): Container {
  const { path } = file;
  const tensors = new Map<string, ContainerTensor>();
  for (const [name, entry] of file.entries)
    tensors.set(name, {
      dtype: entry.dtype,
      shape: entry.shape,
      bytes: entry.end - entry.begin,
      file: path,
      read: () => file.read(name),
      readHeld: () => file.readHeld(name),
      readSync: () => file.readSync(name),
      hold: () => file.hold(name),
      slices: (maxBytes) => file.slices(name, maxBytes),
    });
  return { tensors, close: () => file.close() };
}

/**
 * Reads an index.
 * @returns tensor name to file name
 * @throws CheckpointError when it is not an index, or a file name leaves the folder
 */
export function parseIndex(text: string, file: string): Map<string, string> {
  let map: unknown;
  try {
    map = (JSON.parse(text) as { weight_map?: unknown } | null)?.weight_map;
  } catch (error) {
    throw new CheckpointError(`${file} is not valid JSON: ${(error as Error).message}`, { file }, { cause: error });
  }
  if (typeof map !== 'object' || map === null || Array.isArray(map))
    throw new CheckpointError(`${file} has no weight_map that maps tensor names to files.`, { file });
  const entries = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || shard === '' || shard === '.' || shard === '..' || /[/\\\0]/.test(shard))
      throw new CheckpointError(
        `${file} puts tensor ${plain(name)} in ${quote(shard)}; a file name in the same folder was expected.`,
        { file, tensor: name, got: shard },
      );
    entries.set(name, shard);
  }
  if (entries.size === 0) throw new CheckpointError(`${file} lists no tensors.`, { file });
  return entries;
}

/**
 * Opens the files that an index names, and checks that each holds exactly the tensors that the index says.
 * @param open how to open one file
 */
export async function openSharded(indexFile: string, open: (file: string) => Promise<Container>): Promise<Container> {
  const dir = path.dirname(indexFile);
  const text = await readTextIfThere(indexFile);
  if (text === null) throw new CheckpointError(`There is no ${indexFile}.`, { file: indexFile });
  const index = parseIndex(text, indexFile);
  const parts: Container[] = [];
  try {
    const byFile = new Map<string, Container>();
    for (const shard of new Set(index.values())) {
      const part = await openShard(path.join(dir, shard), indexFile, open);
      parts.push(part);
      byFile.set(shard, part);
    }
    for (const [name, shard] of index)
      if (!byFile.get(shard)!.tensors.has(name))
        throw new CheckpointError(
          `${indexFile} says that tensor ${plain(name)} is in ${plain(shard)}, but that file does not hold it.`,
          {
            file: path.join(dir, shard),
            tensor: name,
          },
        );
    for (const [shard, part] of byFile)
      for (const name of part.tensors.keys())
        if (index.get(name) !== shard)
          throw new CheckpointError(
            `${path.join(dir, shard)} holds tensor ${plain(name)}, which ${indexFile} does not list there.`,
            {
              file: path.join(dir, shard),
              tensor: name,
            },
          );
    return joinContainers(parts);
  } catch (error) {
    await Promise.all(parts.map((part) => part.close()));
    throw error;
  }
}

async function openShard(
  file: string,
  indexFile: string,
  open: (file: string) => Promise<Container>,
): Promise<Container> {
  try {
    return await open(file);
  } catch (error) {
    if (error instanceof CheckpointError && error.data.code === 'ENOENT')
      throw new CheckpointError(
        `${indexFile} names ${path.basename(file)}, but that file is not in the folder. Fetch it.`,
        {
          file,
          code: 'ENOENT',
        },
        { cause: error },
      );
    throw error;
  }
}
