/** Mamba-2's checkpoints: what src/checkpoints asks about the model in them. */
import { ConfigError } from '../../../base/errors.js';
import type { ModelFormat } from '../../../checkpoints/model_format.js';
import type { CheckpointSource } from '../../../checkpoints/source.js';
import { deriveConfig, refuseInexpressible } from './derive.js';
import { layersConfig } from './layers_config.js';
import { huggingFaceName, huggingFaceShape, keepsPrecision } from './names.js';
import { dimensionsOf, type Dimensions, expectedTensors } from './shapes.js';

/** Which layout a config.json belongs to. @throws ConfigError when it is of another model */
function formatOf(config: Record<string, unknown>, file: string): CheckpointSource['format'] {
  if (config.model_type === 'mamba2') return 'hf';
  if ('d_model' in config || 'ssm_cfg' in config) return 'state-spaces';
  if ('dim' in config && 'n_layers' in config) return 'mistral';
  throw new ConfigError(
    `${file}: model_type is ${JSON.stringify(config.model_type)}; expected "mamba2", a state-spaces config (d_model, ssm_cfg) or Mistral's params (dim, n_layers).`,
    { file, option: 'model_type', got: config.model_type, expected: 'mamba2' },
  );
}

export const mamba2Format: ModelFormat<Dimensions> = {
  names: { embedding: 'backbone.embeddings.weight', head: 'lm_head.weight' },
  formatOf,
  tensorName: huggingFaceName,
  tensorShape: huggingFaceShape,
  refuseInexpressible,
  deriveConfig,
  layersConfig,
  dimensionsOf,
  expectedTensors,
  keepsPrecision,
};
