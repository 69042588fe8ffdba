/**
 * The public face of tfjs-mamba2: what users call. `tfjs-mamba2/jit`, `/layers`, `/training` and `/checkpoints` have what
 * lies below. Written out by hand; etc/api/ has the reports that a change of it must change.
 */

// models
export { AutoConfig, AutoModelForCausalLM, AutoTokenizer, type AutoTokenizerOptions } from './models/auto/index.js';
export {
  type CacheArrays,
  type CausalLMInputs,
  type CausalLMOutputs,
  type CheckpointQuantization,
  type EngineKind,
  type EngineOptions,
  type IdsLike,
  inspectState,
  Mamba2Cache,
  Mamba2Config,
  type Mamba2ConfigFields,
  Mamba2ForCausalLM,
  Mamba2Model,
  Mamba2State,
  type ModelInputs,
  type ModelOutputs,
  type PrefillInput,
  type PrefillOptions,
  type PretrainedOptions,
  type QuantizationReport,
  quantize,
  quantizeCheckpoint,
  type QuantizeCheckpointOptions,
  type QuantizedWeightReport,
  type QuantizeOptions,
  type SaveOptions,
  type StateInfo,
} from './models/mamba2/index.js';
export { exportLayersModel } from './models/mamba2/tfjs_export.js';
// what every causal language model here has, whatever its network
export type { Backbone, BackboneInputs, BackboneOutputs } from './models/backbone.js';
export type { CausalLM } from './models/causal_lm.js';
export type { EncodedIds, GenerateOptions } from './models/generate_arguments.js';
export type { LMConfig, RecurrentLM } from './engine/recurrent_lm.js';
export type { RecurrentCache } from './engine/states/cache.js';
export type { NetworkWeights } from './engine/network_weights.js';
export type { HfDeviceMap, MappedDevice } from './engine/placement/place.js';
export type { MapOptions } from './engine/placement/request.js';
export type { HubOptions } from './checkpoints/index.js';

// weight-only quantisation
export {
  Int4WeightOnlyConfig,
  type Int4WeightOnlyOptions,
  Int8WeightOnlyConfig,
  type QuantizationConfig,
  type QuantType,
  type Rounding,
  type ScaleDtype,
  TorchAoConfig,
  type WeightOnlyOptions,
} from './quant/index.js';

// text to ids and back
export {
  type AnyIds,
  type ApplyChatOptions,
  type BatchEncodeOptions,
  BatchEncoding,
  type ChatMessage,
  type ChatTemplateOptions,
  type DecodeOptions,
  type EncodedRows,
  type EncodeOptions,
  type PadOptions,
  type RowDecoder,
  type RowOfIds,
  type RowsOfIds,
  type SpecialToken,
  type SpecialTokens,
  type TemplateMessage,
  type TokenizerCallOptions,
  Tokenizer,
  type TokenizerBackendName,
  type TokenizerFiles,
  type TokenizerOptions,
} from './tokenizers/index.js';

// generation
export {
  ChatSession,
  type ChatSnapshot,
  type EngineSampling,
  type EngineState,
  type FinishReason,
  GenerationConfig,
  type GenerateInputs,
  type GenerateOutput,
  type GenerationEngine,
  type GenerationOptions,
  type IdRow,
  type PrefillReading,
  type RowsAlone,
  type StateArrays,
  type Streamer,
  TextIteratorStreamer,
  TextStreamer,
  type TextIteratorStreamerOptions,
  type TextStreamerOptions,
  type Turn,
  type TurnOptions,
  type WholeOutput,
} from './generation/index.js';
export {
  ExponentialDecayLengthPenalty,
  ForcedBOSTokenLogitsProcessor,
  ForcedEOSTokenLogitsProcessor,
  InfNanRemoveLogitsProcessor,
  LogitNormalization,
  type LogitsProcessor,
  MinLengthLogitsProcessor,
  MinNewTokensLengthLogitsProcessor,
  NoBadWordsLogitsProcessor,
  NoRepeatNGramLogitsProcessor,
  type PrefixAllowedTokens,
  PrefixConstrainedLogitsProcessor,
  RepetitionPenaltyLogitsProcessor,
  SequenceBiasLogitsProcessor,
  SuppressTokensAtBeginLogitsProcessor,
  SuppressTokensLogitsProcessor,
} from './generation/index.js';
export {
  EpsilonLogitsWarper,
  EtaLogitsWarper,
  MinPLogitsWarper,
  TemperatureLogitsWarper,
  TopHLogitsWarper,
  TopKLogitsWarper,
  TopPLogitsWarper,
  TypicalLogitsWarper,
} from './generation/index.js';
export {
  EosTokenCriteria,
  MaxLengthCriteria,
  MaxTimeCriteria,
  type StoppingCriteria,
  StopStringCriteria,
} from './generation/index.js';

// many requests at once
export { Scheduler } from './engine/scheduler/scheduler.js';
export { QueueFullError, SchedulerClosedError, StatesFullError, UnknownStateError } from './engine/scheduler/errors.js';
export type {
  KeptState,
  KeptStates,
  RequestScheduler,
  Scheduled,
  ScheduledRequest,
  ScheduledResult,
  ScheduledTimes,
  ScheduledUsage,
  SchedulerEvent,
  SchedulerMetrics,
  SchedulerOptions,
  SchedulerWarmupOptions,
  StateCacheMetrics,
  StateCacheOptions,
  TokenConstraint,
  TokenEvent,
  TokenLogprob,
  TokenLogprobs,
} from './engine/scheduler/types.js';

// pipelines
export {
  type Chat,
  type FeatureExtractionOptions,
  type FeatureExtractionPipeline,
  type FeatureModel,
  type GeneratedChat,
  type GeneratedText,
  type GenerationCounts,
  type GenerationWarmupOptions,
  perplexity,
  type PerplexityOptions,
  type PerplexityResult,
  pipeline,
  type PipelineModel,
  type PipelineOptions,
  type ScoringModel,
  type TextGenerationOptions,
  type TextGenerationOutput,
  type TextGenerationPipeline,
  type WarmupOptions,
} from './pipelines/index.js';

// LoRA adapters
export {
  type AdapterValues,
  type AddAdapterOptions,
  get_peft_model,
  load_adapter,
  load_peft_model,
  LoraConfig,
  type LoraConfigFields,
  type LoraConfigNotes,
  type MergeOptions,
  PeftModel,
  type PeftOptions,
  save_adapter,
} from './peft/index.js';

// fine-tuning; more in tfjs-mamba2/training
export {
  AdamW,
  type AdamWArgs,
  type BatchSource,
  CausalLMTrainer,
  type CompileArgs,
  type DataFilesOption,
  Dataset,
  type DatasetDict,
  EarlyStoppingCallback,
  type EarlyStoppingOptions,
  type Example,
  type ExampleSource,
  type FitArgs,
  type EvaluateArgs,
  type FitCallback,
  type FitExamples,
  type FitLoss,
  type FitMetric,
  IterableDataset,
  type IterableDatasetDict,
  loadExamples,
  load_dataset,
  type LoadDatasetOptions,
  type LogEntry,
  type OptimizerName,
  ProgressCallback,
  readExamples,
  type ReadOptions,
  type SchedulerType,
  type ArgumentFields,
  SFTConfig,
  type SFTConfigOptions,
  type SFTFields,
  type SFTOptions,
  SFTTrainer,
  type SFTTrainerOptions,
  shuffled,
  type ShuffleOptions,
  splitExamples,
  type SplitOptions,
  TensorBoardLog,
  type TokenizedExample,
  type TokenizeOptions,
  type TrainableModel,
  Trainer,
  type TrainerCallback,
  type TrainerControl,
  type TrainerOptions,
  type TrainerState,
  TrainingArguments,
  type TrainingOptions,
  type TrainOptions,
  type TrainOutput,
} from './training/index.js';

// which TensorFlow runs
export {
  configureRuntime,
  type Device,
  type DeviceLike,
  type DeviceMap,
  deviceReport,
  type DeviceReport,
  loadTensorFlow,
  type MaxMemory,
  type RuntimeOptions,
  selectBackend,
  type SelectOptions,
  setupRuntime,
  type SetupOptions,
  type SetupResult,
} from './runtime/index.js';

// names of element types
export type { ComputeDtype, DtypeLike } from './base/compute_dtypes.js';

// errors
export {
  ArgumentError,
  ChatTemplateError,
  CheckpointError,
  ConfigError,
  DeviceError,
  DisposedError,
  type ErrorData,
  GenerationError,
  Mamba2Error,
  SaveError,
  TokenizerError,
  TrainingError,
} from './base/errors.js';
