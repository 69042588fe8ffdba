/** AutoConfig, AutoModelForCausalLM, AutoTokenizer: the right class for a checkpoint folder, whatever its container. */
import { OptionTable } from '../../base/options.js';
import { HUB_OTHERS, HUB_RULES, type HubOptions } from '../../checkpoints/index.js';
import { ConfigError } from '../../base/errors.js';
import { openCheckpoint, readConfigAlone } from '../checkpoints.js';
import { locateModel } from '../locate.js';
import { Mamba2ForCausalLM } from '../mamba2/causal_lm.js';
import { Mamba2Config } from '../mamba2/config.js';
import type { PretrainedOptions } from '../mamba2/pretrained_options.js';

export { AutoTokenizer, type AutoTokenizerOptions } from './auto_tokenizer.js';

const CONFIG_TABLE = new OptionTable<HubOptions>('AutoConfig.from_pretrained()', HUB_RULES, { others: HUB_OTHERS });

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
    CONFIG_TABLE.check(options);
    const dir = await locateModel(name, options, 'config');
    const config = (await readConfigAlone(dir)) ?? (await configOfWeights(await locateModel(name, options)));
    refuseOthers(dir, config.model_type);
    return Mamba2Config.from_dict(config);
  }
}

async function configOfWeights(dir: string): Promise<Record<string, unknown>> {
  const source = await openCheckpoint(dir);
  await source.close();
  return source.config;
}

/** Loads models. */
export class AutoModelForCausalLM {
  private constructor() {}

  /**
   * The causal language model of a checkpoint folder.
   * @param name folder, or a model on the hub such as 'state-spaces/mamba2-130m'
   * @param options how to load and run it
   * @throws CheckpointError or ConfigError naming file and tensor or key; DeviceError when the device cannot be used
   * @example
   * const model = await AutoModelForCausalLM.from_pretrained('models/tiny-books-mamba2', { dtype: 'float32' });
   */
  static from_pretrained(name: string, options: PretrainedOptions = {}): Promise<Mamba2ForCausalLM> {
    return Mamba2ForCausalLM.from_pretrained(name, options);
  }
}

function refuseOthers(dir: string, modelType: unknown): void {
  if (modelType === undefined || modelType === 'mamba2') return;
  throw new ConfigError(`${dir}: model_type is '${modelType as string}'; this package runs 'mamba2' models only`, {
    dir,
    model_type: modelType,
  });
}
