/** AutoConfig, AutoModelForCausalLM, AutoTokenizer: the right class for a checkpoint folder, whatever its container. */
import type { HubOptions } from '../../checkpoints/index.js';
import { ConfigError } from '../../base/errors.js';
import { openCheckpoint } from '../checkpoints.js';
import { locateModel } from '../locate.js';
import { Mamba2ForCausalLM, type PretrainedOptions } from '../mamba2/causal_lm.js';
import { Mamba2Config } from '../mamba2/config.js';

export { AutoTokenizer } from './auto_tokenizer.js';

/** Reads configurations. */
export class AutoConfig {
  private constructor() {}

  /**
   * The configuration of a checkpoint folder, in Hugging Face's keys whatever the container.
   * @param name folder, or a model on the hub such as 'state-spaces/mamba2-130m'
   * @param options which revision, which cache; see HubOptions
   * @throws CheckpointError when the folder holds no checkpoint; ConfigError for another model type
   * @example
   * const config = await AutoConfig.from_pretrained('models/tiny-books-mamba2');
   */
  static async from_pretrained(name: string, options: HubOptions = {}): Promise<Mamba2Config> {
    const { dir } = await locateModel(name, options);
    const source = await openCheckpoint(dir);
    await source.close();
    refuseOthers(dir, source.config.model_type);
    return new Mamba2Config(source.config);
  }
}

/** Loads models. */
export class AutoModelForCausalLM {
  private constructor() {}

  /**
   * The causal language model of a checkpoint folder.
   * @param name folder, or a model on the hub such as 'state-spaces/mamba2-130m'
   * @param options how to load and run it; for the hub revision, cache_dir, local_files_only, token
   * @throws CheckpointError or ConfigError naming file and tensor or key; DeviceError when the device cannot be used
   * @example
   * const model = await AutoModelForCausalLM.from_pretrained('models/tiny-books-mamba2', { dtype: 'float32' });
   */
  static async from_pretrained(name: string, options: PretrainedOptions & HubOptions = {}): Promise<Mamba2ForCausalLM> {
    const { dir, rest } = await locateModel(name, options);
    return Mamba2ForCausalLM.from_pretrained(dir, rest);
  }
}

function refuseOthers(dir: string, modelType: unknown): void {
  if (modelType === undefined || modelType === 'mamba2') return;
  throw new ConfigError(`${dir}: model_type is '${modelType as string}'; this package runs 'mamba2' models only`, {
    dir,
    model_type: modelType,
  });
}
