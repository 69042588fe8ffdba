/**
 * What is in a checkpoint, from headers alone: sizes, dtypes, dimensions, and why it would not load.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { CheckpointError, Mamba2Error } from '../base/errors.js';
import type { Container } from './container.js';
import { elementCount } from '../base/stored_dtypes.js';
import { findWeights, openCheckpoint, openWeights } from './open.js';
import type { ModelDimensions, ModelFormat } from './model_format.js';
import { openSafetensorsContainer, openSharded } from './shards.js';
import type { CheckpointSource, TensorInfo } from './source.js';
import { openTorchContainer } from './torch.js';
import { findDisagreements, type ValidateOptions } from './validate.js';

/** Outcome of inspectCheckpoint, with the sizes that the kind of model has. */
export interface InspectionOf<D extends ModelDimensions> {
  readonly path: string;
  /** kind of folder; null for a single file, or when the configuration cannot be read */
  readonly format: 'hf' | 'state-spaces' | 'mistral' | null;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  /** under Hugging Face's names where the folder loads, else under the file's own */
  readonly tensors: readonly TensorInfo[];
  /** elements of all tensors; those of a head that is stored beside tied embeddings are not counted, and packed ones as
   * the weights that they stand for */
  readonly parameters: number;
  /** elements and bytes by stored dtype */
  readonly dtypes: Readonly<Record<string, { readonly elements: number; readonly bytes: number }>>;
  readonly dimensions: D | null;
  readonly config: Readonly<Record<string, unknown>> | null;
  /** why it would not load, in full sentences; empty when it would */
  readonly problems: readonly string[];
}

/** Options of inspectCheckpoint. */
export interface InspectOptions {
  /** what a quantised checkpoint may have otherwise than a plain one; by default no such thing is known to load */
  quantized?: (source: CheckpointSource) => ValidateOptions | Promise<ValidateOptions>;
}

/** Opens one file of weights by its name. */
async function openFile(file: string): Promise<Container> {
  if (file.endsWith('.safetensors')) return openSafetensorsContainer(file);
  if (file.endsWith('.safetensors.index.json')) return openSharded(file, openSafetensorsContainer);
  if (file.endsWith('.bin.index.json')) return openSharded(file, openTorchContainer);
  if (/\.(bin|pt|pth)$/.test(file)) return openTorchContainer(file);
  throw new CheckpointError(
    `${file} is no file of weights that is known by its name: .safetensors, .bin, .pt, .pth or an index of these.`,
    { file },
  );
}

const message = (error: unknown): string => {
  if (error instanceof Mamba2Error) return error.message;
  throw error;
};

function describe(container: Container): TensorInfo[] {
  return [...container.tensors].map(([name, { dtype, shape, bytes, file }]) => ({ name, dtype, shape, bytes, file }));
}

function summary<D extends ModelDimensions>(
  model: ModelFormat<D>,
  target: string,
  tensors: readonly TensorInfo[],
  rest: Pick<InspectionOf<D>, 'format' | 'config' | 'dimensions' | 'problems'>,
): InspectionOf<D> {
  const dtypes: Record<string, { elements: number; bytes: number }> = {};
  let parameters = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    const elements = elementCount(shape)!;
    const sum = (dtypes[dtype] ??= { elements: 0, bytes: 0 });
    sum.elements += elements;
    sum.bytes += bytes;
    if (!(rest.dimensions?.tied && name === model.names.head)) parameters += elements;
  }
  if (rest.dimensions && rest.config?.quantization_config) {
    const shapes = model.expectedTensors(rest.config).values();
    parameters = [...shapes].reduce((sum, shape) => sum + elementCount(shape)!, 0);
  }
  const files = [...new Set(tensors.map(({ file }) => file))].sort();
  return {
    path: target,
    files: files.map((file) => ({ name: path.basename(file), bytes: fs.statSync(file).size })),
    tensors,
    parameters,
    dtypes,
    ...rest,
  };
}

async function inspectFolder<D extends ModelDimensions>(
  model: ModelFormat<D>,
  dir: string,
  options: InspectOptions,
): Promise<InspectionOf<D>> {
  try {
    const source = await openCheckpoint(model, dir);
    try {
      const { format, config } = source;
      const tensors = [...source.tensors.values()];
      try {
        const allowed = config.quantization_config ? await options.quantized?.(source) : undefined;
        const problems = findDisagreements(model, source, allowed).map(({ what }) => `${what}.`);
        return summary(model, dir, tensors, { format, config, dimensions: model.dimensionsOf(config), problems });
      } catch (error) {
        return summary(model, dir, tensors, { format, config, dimensions: null, problems: [message(error)] });
      }
    } finally {
      await source.close();
    }
  } catch (error) {
    // say what is there all the same, as far as the files of weights can be read
    const problems = [message(error)];
    const nothing = { format: null, config: null, dimensions: null, problems };
    if ((await findWeights(dir)) === null) return summary(model, dir, [], nothing);
    try {
      const container = await openWeights(dir);
      const tensors = describe(container);
      await container.close();
      return summary(model, dir, tensors, nothing);
    } catch (second) {
      if (!problems.includes(message(second))) problems.push(message(second));
      return summary(model, dir, [], nothing);
    }
  }
}

/**
 * Looks at a model folder or a file of weights; reads headers only.
 * @param target folder, or a .safetensors, .bin, .pt, .pth or index file
 * @throws CheckpointError when there is no such file or folder, or a single file cannot be read
 */
export async function inspectCheckpoint<D extends ModelDimensions>(
  model: ModelFormat<D>,
  target: string,
  options: InspectOptions = {},
): Promise<InspectionOf<D>> {
  const stat = await fs.promises.stat(target).catch(() => null);
  if (!stat) throw new CheckpointError(`There is no file or folder ${target}.`, { file: target, code: 'ENOENT' });
  if (stat.isDirectory()) return inspectFolder(model, target, options);
  const container = await openFile(target);
  const tensors = describe(container);
  await container.close();
  return summary(model, target, tensors, { format: null, config: null, dimensions: null, problems: [] });
}
