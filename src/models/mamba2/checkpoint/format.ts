/** Mamba-2's checkpoints: what src/checkpoints asks about the model in them. */
import { ConfigError } from '../../../base/errors.js';
import { quote } from '../../../base/quote.js';
import type { ModelFormat } from '../../../checkpoints/model_format.js';
import type { CheckpointSource } from '../../../checkpoints/source.js';
import { deriveConfig, refuseInexpressible } from './derive.js';
import { layersConfig } from './layers_config.js';
import { huggingFaceName, huggingFaceShape, keepsPrecision } from './names.js';
import { huggingFaceConfig } from './written_by.js';
import { dimensionsOf, type Dimensions, expectedTensors } from './shapes.js';

/** Which layout a config.json belongs to. @throws ConfigError when it is of another model */
function formatOf(config: Record<string, unknown>, file: string): CheckpointSource['format'] {
  if (config.model_type === 'mamba2') return 'hf';
  // mamba_ssm writes no model_type; other libraries call a width d_model as well
  if ('ssm_cfg' in config || ('d_model' in config && config.model_type === undefined)) return 'state-spaces';
  if ('dim' in config && 'n_layers' in config) return 'mistral';
  throw new ConfigError(
    `${file}: model_type is ${quote(config.model_type)}; expected "mamba2", a state-spaces config (d_model, ssm_cfg) or Mistral's params (dim, n_layers).`,
    { file, option: 'model_type', got: config.model_type, expected: 'mamba2' },
  );
}

export const mamba2Format: ModelFormat<Dimensions> = {
  names: { embedding: 'backbone.embeddings.weight', head: 'lm_head.weight' },
  formatOf,
  tensorName: huggingFaceName,
  tensorShape: huggingFaceShape,
  refuseInexpressible,
  huggingFaceConfig,
  deriveConfig,
  layersConfig,
  dimensionsOf,
  expectedTensors,
  keepsPrecision,
};
