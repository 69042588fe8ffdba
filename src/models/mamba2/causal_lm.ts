/** Mamba2ForCausalLM: Mamba-2 with its head, and loading it from a checkpoint. */
import * as tf from '@tensorflow/tfjs';
import { computeDtypeOf } from '../../base/compute_dtypes.js';
import { DeviceError } from '../../base/errors.js';
import type { CheckpointSource } from '../../checkpoints/source.js';
import type { NetworkWeights } from '../../engine/network_weights.js';
import { quantizeWeights, restoreQuantized } from '../../engine/quantized_weights.js';
import { GenerationConfig } from '../../generation/config.js';
import { CausalLM, type CausalLMInputs as InputsOf, type CausalLMOutputs as OutputsOf } from '../causal_lm.js';
import { type EngineOptions, MODEL_TABLE } from '../engine_options.js';
import { locateModel } from '../locate.js';
import type { Mamba2Cache } from './cache.js';
import type { Mamba2Config, Mamba2ConfigFields } from './config.js';
import { FRESH_TABLE, OVERRIDES_TABLE } from './config_rules.js';
import { Mamba2Model } from './modeling.js';
import { Mamba2Network } from './network.js';
import { loadCheckpoint } from './pretrained.js';
import { type LoadingPlan, loadingPlan, PRETRAINED_TABLE, type PretrainedOptions } from './pretrained_options.js';

export type CausalLMInputs = InputsOf<Mamba2Cache>;
export type CausalLMOutputs = OutputsOf<Mamba2Cache>;

/** A type that was asked for and that the backend does not compute with. @throws DeviceError */
function refuseIdle({ engine }: LoadingPlan): void {
  if (tf.getBackend() === 'tensorflow' || computeDtypeOf(engine.dtype) !== 'bfloat16') return;
  throw new DeviceError(
    `dtype 'bfloat16' has no effect on the backend '${tf.getBackend()}', which computes in float32. Leave dtype out, or set TensorFlow up with \`npx mamba2 setup\`.`,
    { option: 'dtype', got: engine.dtype, backend: tf.getBackend() },
  );
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
   * Loads a checkpoint: Hugging Face's safetensors (one file or shards), and the other containers of Mamba-2.
   *
   * @param name a folder, or a model on the hub such as 'state-spaces/mamba2-130m'
   * @throws ArgumentError for an unknown option or a wrong value, by name; CheckpointError or ConfigError naming file and
   *   tensor or key; DeviceError when the device cannot be used
   * @example
   * const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2', { device: 'cpu' });
   */
  static async from_pretrained(name: string, options: PretrainedOptions = {}): Promise<Mamba2ForCausalLM> {
    PRETRAINED_TABLE.check(options);
    OVERRIDES_TABLE.check(options.config);
    const { on_warning: onWarning, config: overrides, quantization_config } = options;
    const plan = loadingPlan(options);
    const dir = await locateModel(name, options);
    const { config, source, warnings } = await loadCheckpoint(dir, overrides);
    let model: Mamba2ForCausalLM | null = null;
    try {
      warnings.forEach((warning) => onWarning?.(warning));
      // imported here so that a bundle for the browser, which loads LayersModels, has no native code in it
      const { preferWideVectors, selectBackend } = await import('../../runtime/index.js');
      if (quantization_config || config.to_dict()['quantization_config']) preferWideVectors();
      if (plan.device !== null || !tf.getBackend()) await selectBackend(plan.device ?? 'auto');
      refuseIdle(plan);
      model = new Mamba2ForCausalLM(config, source, plan.engine);
      await restoreQuantized(model.weights);
      if (quantization_config) await quantizeWeights(model.weights, quantization_config);
      const { device_map, max_memory, tp_plan, tp_size } = options;
      if (device_map !== undefined || tp_plan !== undefined) model.place({ device_map, max_memory, tp_plan, tp_size });
      await model.weights.hold();
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
    MODEL_TABLE.check(options);
    super(new Mamba2Network(config), source, options);
  }

  protected override makeBackbone(weights: NetworkWeights<Mamba2Network>): Mamba2Model {
    return new Mamba2Model(weights.network.config, weights);
  }

  /** @throws ConfigError for an unknown key or a wrong value */
  override fresh(changes: Partial<Mamba2ConfigFields> = {}): Mamba2ForCausalLM {
    FRESH_TABLE.check(changes);
    return new Mamba2ForCausalLM(this.network.withConfig(changes).config);
  }
}
