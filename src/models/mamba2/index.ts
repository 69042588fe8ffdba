/** Mamba-2: configuration, network, backbone, causal language model, cache, and the engines that generate. */
export { Mamba2Config, type Mamba2ConfigFields } from './config.js';
export { type CacheArrays, Mamba2Cache, stateShapes } from './cache.js';
export { Mamba2Network } from './network.js';
export { NetworkWeights } from '../../engine/network_weights.js';
export { Mamba2Model, type ModelInputs, type ModelOutputs } from './modeling.js';
export { CompiledEngine, type CompiledEngineOptions } from '../../engine/compiled/compiled_engine.js';
export { buildDecodingProgram, type ProgramDtype } from '../../engine/compiled/decoding_program.js';
export { type CausalLMInputs, type CausalLMOutputs, Mamba2ForCausalLM } from './causal_lm.js';
export type { PretrainedOptions } from './pretrained_options.js';
export type { EngineKind, EngineOptions } from '../engine_options.js';
export { EagerEngine } from '../../engine/eager_engine.js';
export { EagerState } from '../../engine/states/eager_state.js';
export { loadCheckpoint } from './pretrained.js';
export type { SaveOptions } from '../save.js';
export { RecurrentState as Mamba2State } from '../state.js';
export { inspectState, type StateInfo } from '../../engine/states/file.js';
export type { PrefillInput, PrefillOptions } from '../stateful.js';
export type { IdsLike } from '../../engine/inputs.js';
export {
  quantize,
  quantizeCheckpoint,
  type CheckpointQuantization,
  type QuantizeCheckpointOptions,
} from '../quantize.js';
export {
  quantizationOf,
  type Quantization,
  type QuantizationReport,
  type QuantizedWeightReport,
  type QuantizeOptions,
} from '../../engine/quantized_weights.js';
