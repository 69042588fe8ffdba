/** Loading a causal language model from a checkpoint folder, and saving one that transformers can load. */
import type * as tf from '@tensorflow/tfjs';
import type { CheckpointSource, OutTensor, StoredDtype } from '../../checkpoints/source.js';
import { encodeFloat32, type FloatDtype, floatDtypeOf, torchDtypeName } from '../../base/stored_dtypes.js';
import { openCheckpoint } from '../../checkpoints/open.js';
import { saveCheckpoint, type SaveCheckpointOptions } from '../../checkpoints/save.js';
import { validateCheckpoint, type ValidateOptions } from '../../checkpoints/validate.js';
import { ArgumentError, ConfigError } from '../../base/errors.js';
import { Mamba2Config, type Mamba2ConfigFields } from './config.js';
import { isMatrix, isStored, type Weight, type WeightRole } from '../../layers/weights.js';
import type { NetworkWeights } from './modeling.js';
import { weightRoles } from './network.js';
import { packedWeight } from '../../quant/index.js';
import {
  checkpointQuantization,
  isPacked,
  packedOutTensors,
  quantizationOf,
  quantizationRecord,
  quantizedMetadata,
} from './quantized.js';

export interface LoadedCheckpoint {
  config: Mamba2Config;
  source: CheckpointSource;
  /** Things worth telling the user. */
  warnings: readonly string[];
}

/**
 * Opens a checkpoint folder of any known container and checks it against its configuration.
 * @param overrides configuration keys that replace those of the folder
 * @throws CheckpointError or ConfigError naming file and tensor or key
 */
export async function loadCheckpoint(
  dir: string,
  overrides: Partial<Mamba2ConfigFields> = {},
): Promise<LoadedCheckpoint> {
  const source = await openCheckpoint(dir);
  try {
    const modelType = source.config.model_type;
    if (modelType !== undefined && modelType !== 'mamba2') {
      throw new ConfigError(`${dir}: model_type is '${String(modelType)}'; this package runs 'mamba2' models only`, {
        dir,
        model_type: modelType,
      });
    }
    const { tied, warnings } = await validateCheckpoint(source, quantizedParts(source));
    const config = new Mamba2Config({ ...source.config, ...overrides, tie_word_embeddings: tied });
    return { config, source, warnings };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** What a quantised checkpoint may have otherwise than a plain one. @throws ConfigError for a kind that is not supported */
export function quantizedParts(source: CheckpointSource): ValidateOptions {
  if (!checkpointQuantization(source)) return {};
  let roles: Map<string, WeightRole> | null = null; // made when asked for: by then the configuration is known to be sound
  return {
    allow: (name) => {
      const role = (roles ??= weightRoles(source.config)).get(packedWeight(name) ?? '');
      return role !== undefined && isMatrix({ role });
    },
    replaced: (name) => isPacked(source, name),
  };
}

export interface SaveOptions extends Pick<
  SaveCheckpointOptions,
  'max_shard_size' | 'legacy_json' | 'signal' | 'on_progress' | 'extra_files'
> {
  /** Stored type of the weights. Default: as in the checkpoint when nothing was changed since loading, else float32. */
  dtype?: 'float32' | 'float16' | 'bfloat16';
}

/** @throws ArgumentError for a matrix with an adapter on it: one tensor of a checkpoint cannot say what it does */
function refuseAdapted(name: string, weight: Weight): void {
  if (!isStored(weight)) return;
  throw new ArgumentError(
    `save_pretrained: '${name}' has an adapter on it, or merged into an embedding whose head is tied to it. Save the model with it (await peft.merge_and_unload().save_pretrained(dir)), the adapter alone (save_adapter(peft, dir)), or the model without it, after peft.unload().`,
    { name },
  );
}

/**
 * Writes config.json and the weights in Hugging Face's layout.
 * @throws ArgumentError for weights with an adapter on them, and an unknown dtype; SaveError. No file is left then
 */
export async function saveWeights(
  dir: string,
  config: Mamba2Config,
  weights: NetworkWeights,
  options: SaveOptions = {},
): Promise<void> {
  const wanted = options.dtype === undefined ? null : floatDtypeOf(options.dtype);
  if (options.dtype !== undefined && wanted === null) {
    throw new ArgumentError(
      `save_pretrained: dtype is '${String(options.dtype)}', expected 'float32', 'float16' or 'bfloat16'`,
      { dtype: options.dtype },
    );
  }
  const { source } = weights;
  const untouched = !weights.materialized && source !== null;
  const stored = (name: string): StoredDtype => (untouched ? source.tensors.get(name)!.dtype : 'F32');
  const read = async (name: string): Promise<Float32Array> =>
    untouched ? source.readFloat32(name) : ((await (weights.all()[name] as tf.Tensor).data()) as Float32Array);
  const quantization = quantizationOf(weights);
  const specs = weights.network.weightSpecs();
  const tensors: OutTensor[] = specs.flatMap(({ name, shape }) => {
    const packed = quantization?.matrices.get(name);
    if (packed) return packedOutTensors(name, packed);
    if (!untouched) refuseAdapted(name, weights.all()[name]!);
    const dtype = wanted ?? stored(name);
    return {
      name,
      dtype,
      shape,
      data: async () =>
        untouched && dtype === stored(name)
          ? source.readBytes(name)
          : encodeFloat32(await read(name), dtype as FloatDtype),
    };
  });
  const main = tensors.find(
    (t) => t.name === 'backbone.embeddings.weight' || t.name === 'backbone.norm_f.weight',
  )!.dtype;
  const record = {
    ...config.to_dict(),
    dtype: torchDtypeName(main),
    ...(quantization && quantizationRecord(quantization.config)),
  };
  const metadata = quantization ? quantizedMetadata(specs, quantization.matrices) : undefined;
  await saveCheckpoint(dir, record, tensors, { ...options, metadata });
}
