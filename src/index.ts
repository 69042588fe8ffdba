/**
 * The public face of tfjs-mamba2: what users call. `tfjs-mamba2/jit`, `/layers`, `/training` and `/checkpoints` have what
 * lies below. Written out by hand; etc/api/ has the reports that a change of it must change.
 */

// models
export { AutoConfig, AutoModelForCausalLM, AutoTokenizer } from './models/auto/index.js';
export {
  type CausalLMInputs,
  type CausalLMOutputs,
  type CheckpointQuantization,
  type EngineKind,
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
export type { HubOptions } from './checkpoints/index.js';

// weight-only quantisation
export {
  Int4WeightOnlyConfig,
  type Int4WeightOnlyOptions,
  Int8WeightOnlyConfig,
  type QuantizationConfig,
  TorchAoConfig,
  type WeightOnlyOptions,
} from './quant/index.js';

// text to ids and back
export {
  type BatchEncodeOptions,
  type BatchEncoding,
  type ChatMessage,
  type ChatTemplateOptions,
  type DecodeOptions,
  type EncodeOptions,
  Tokenizer,
  type TokenizerOptions,
} from './tokenizers/index.js';

// generation
export {
  ChatSession,
  type ChatSnapshot,
  type FinishReason,
  GenerationConfig,
  type GenerateInputs,
  type GenerateOutput,
  type GenerationOptions,
  type Streamer,
  TextIteratorStreamer,
  TextStreamer,
  type TextStreamerOptions,
  type Turn,
  type TurnOptions,
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

// pipelines
export {
  type Chat,
  type FeatureExtractionOptions,
  type FeatureExtractionPipeline,
  type GeneratedChat,
  type GeneratedText,
  perplexity,
  type PerplexityOptions,
  type PerplexityResult,
  pipeline,
  type PipelineOptions,
  type TextGenerationOptions,
  type TextGenerationPipeline,
} from './pipelines/index.js';

// LoRA adapters
export {
  get_peft_model,
  load_adapter,
  load_peft_model,
  LoraConfig,
  type LoraConfigFields,
  PeftModel,
  type PeftOptions,
  save_adapter,
} from './peft/index.js';

// fine-tuning; more in tfjs-mamba2/training
export {
  AdamW,
  type AdamWArgs,
  CausalLMTrainer,
  type CompileArgs,
  EarlyStoppingCallback,
  type Example,
  type FitArgs,
  loadExamples,
  ProgressCallback,
  readExamples,
  type ReadOptions,
  SFTTrainer,
  type SFTOptions,
  type SFTTrainerOptions,
  shuffled,
  splitExamples,
  TensorBoardLog,
  type TokenizedExample,
  Trainer,
  type TrainerCallback,
  type TrainerControl,
  type TrainerOptions,
  type TrainerState,
  type TrainingArguments,
  type TrainOutput,
} from './training/index.js';

// which TensorFlow runs
export {
  configureRuntime,
  type Device,
  deviceReport,
  type DeviceReport,
  loadTensorFlow,
  type RuntimeOptions,
  selectBackend,
  type SelectOptions,
  setupRuntime,
  type SetupOptions,
  type SetupResult,
} from './runtime/index.js';

// errors
export {
  ArgumentError,
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
