/** Mamba2ForCausalLM: Mamba-2 with its head, and loading it from a checkpoint. */
import * as tf from '@tensorflow/tfjs';
import type { CheckpointSource } from '../../checkpoints/source.js';
import type { NetworkWeights } from '../../engine/network_weights.js';
import { quantizeWeights, restoreQuantized } from '../../engine/quantized_weights.js';
import { GenerationConfig } from '../../generation/config.js';
import type { QuantizationConfig, TorchAoConfig } from '../../quant/index.js';
import type { Device } from '../../runtime/index.js';
import {
  CausalLM,
  type CausalLMInputs as InputsOf,
  type CausalLMOutputs as OutputsOf,
  type EngineOptions,
} from '../causal_lm.js';
import type { Mamba2Cache } from './cache.js';
import type { Mamba2Config } from './config.js';
import { type Mamba2ConfigFields } from './config.js';
import { Mamba2Model } from './modeling.js';
import { Mamba2Network } from './network.js';
import { loadCheckpoint } from './pretrained.js';

export type CausalLMInputs = InputsOf<Mamba2Cache>;
export type CausalLMOutputs = OutputsOf<Mamba2Cache>;

export interface PretrainedOptions extends EngineOptions {
  /** 'auto' (default: the best there is), 'cpu', 'gpu', 'tensorflow', 'wasm' or 'js'. Without it a backend chosen before stays. */
  device?: Device;
  /**
   * Quantise the matrices while loading, one at a time: Int4WeightOnlyConfig, Int8WeightOnlyConfig or TorchAoConfig.
   * A checkpoint that is quantised already needs none.
   */
  quantization_config?: QuantizationConfig | TorchAoConfig;
  /** Configuration keys that replace the folder's, for example { norm_groups: 'full' }. */
  config?: Partial<Mamba2ConfigFields>;
  /** Called with things worth knowing, such as a head that is tied and stored apart. */
  on_warning?: (message: string) => void;
}

/**
 * Mamba-2 with a language-model head. Source: Hugging Face Mamba2ForCausalLM.
 *
 * @example
 * const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2');
 * const { logits, cache } = model.forward({ input_ids: [[1, 2, 3]] });
 */
export class Mamba2ForCausalLM extends CausalLM<Mamba2Network, Mamba2Cache> {
  declare readonly backbone: Mamba2Model;

  /**
   * Loads a checkpoint folder: Hugging Face's safetensors (one file or shards), and the other containers of Mamba-2.
   *
   * @param dir the folder
   * @throws CheckpointError or ConfigError naming file and tensor or key; DeviceError when the device cannot be used
   * @example
   * const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2', { device: 'cpu' });
   */
  static async from_pretrained(dir: string, options: PretrainedOptions = {}): Promise<Mamba2ForCausalLM> {
    const { device, on_warning: onWarning, config: overrides, quantization_config, ...engineOptions } = options;
    const { config, source, warnings } = await loadCheckpoint(dir, overrides);
    let model: Mamba2ForCausalLM | null = null;
    try {
      warnings.forEach((warning) => onWarning?.(warning));
      // imported here so that a bundle for the browser, which loads LayersModels, has no native code in it
      const { preferWideVectors, selectBackend } = await import('../../runtime/index.js');
      if (quantization_config || config.to_dict()['quantization_config']) preferWideVectors();
      if (device !== undefined || !tf.getBackend()) await selectBackend(device ?? 'auto');
      model = new Mamba2ForCausalLM(config, source, engineOptions);
      await restoreQuantized(model.weights);
      if (quantization_config) await quantizeWeights(model.weights, quantization_config);
      model.generation_config = await GenerationConfig.from_pretrained(dir, config.to_dict());
      return model;
    } catch (error) {
      if (model) model.dispose();
      else await source.close();
      throw error;
    }
  }

  /** @param source where the weights come from; without one they are freshly initialised */
  constructor(config: Mamba2Config, source: CheckpointSource | null = null, options: EngineOptions = {}) {
    super(new Mamba2Network(config), source, options);
  }

  protected override makeBackbone(weights: NetworkWeights<Mamba2Network>): Mamba2Model {
    return new Mamba2Model(weights.network.config, weights);
  }

  override fresh(changes: Readonly<Record<string, unknown>> = {}): Mamba2ForCausalLM {
    return new Mamba2ForCausalLM(this.network.withConfig(changes).config);
  }
}
