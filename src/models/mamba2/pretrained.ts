/** Loading a causal language model from a checkpoint folder. */
import type { CheckpointSource } from '../../checkpoints/source.js';
import type { ValidateOptions } from '../../checkpoints/validate.js';
import { ConfigError } from '../../base/errors.js';
import { checkpointQuantization, isPacked } from '../../engine/quantized_weights.js';
import { openCheckpoint, validateCheckpoint } from '../checkpoints.js';
import { Mamba2Config, type Mamba2ConfigFields } from './config.js';
import { isMatrix, type WeightRole } from '../../layers/weights.js';
import { packedWeight } from '../../quant/index.js';
import { weightRoles } from './network.js';

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
      throw new ConfigError(`${dir}: model_type is '${modelType as string}'; this package runs 'mamba2' models only`, {
        dir,
        model_type: modelType,
      });
    }
    const { tied, warnings } = await validateCheckpoint(source, quantizedParts(source));
    const config = Mamba2Config.from_dict({ ...source.config, ...overrides, tie_word_embeddings: tied });
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
