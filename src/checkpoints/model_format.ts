/**
 * What this folder asks about the model that a checkpoint holds: its tensors' names and shapes, and its configuration in
 * each layout of files. Each model's own folder answers (src/models/<model>/checkpoint/).
 */
import type { CheckpointSource, StoredDtype } from './source.js';

/** Shape and dtype of each tensor, under Hugging Face's names. */
export type TensorShapes = ReadonlyMap<
  string,
  { readonly shape: readonly number[]; readonly dtype: StoredDtype; readonly file: string }
>;

/** Sizes that a configuration declares; a model has more of its own. */
export interface ModelDimensions {
  /** true when the head is the embedding matrix */
  readonly tied: boolean;
}

/** A layer in the topology of TensorFlow.js' model.json. */
export interface LayerJson {
  readonly class_name?: string;
  readonly name?: string;
  readonly config?: Record<string, unknown>;
}

/** A configuration as parsed from its file. */
type Config = Record<string, unknown>;

/** One kind of model, as its checkpoints describe it. `file` is where a configuration is from, for messages. */
export interface ModelFormat<D extends ModelDimensions = ModelDimensions> {
  /** Hugging Face's names of the embedding matrix and of the head. */
  readonly names: { readonly embedding: string; readonly head: string };
  /** Which layout a config.json belongs to. @throws ConfigError when it is of another model */
  formatOf(config: Config, file: string): CheckpointSource['format'];
  /** Hugging Face's name of a tensor, from any container's. */
  tensorName(name: string): string;
  /** The shape of a tensor as Hugging Face has it, where the same bytes go by another one; else the shape given. */
  tensorShape(name: string, shape: readonly number[]): readonly number[];
  /** @throws ConfigError when the configuration or a tensor tells of parts that this package's model does not have */
  refuseInexpressible(tensors: TensorShapes, config: Config, file: string): void;
  /**
   * A config.json of Hugging Face's layout in the keys, and with the values, that its writer reads.
   * @throws ConfigError when it contradicts itself
   */
  huggingFaceConfig(config: Config, file: string): Config;
  /**
   * The configuration in Hugging Face's keys, of a checkpoint that is not in Hugging Face's layout.
   * @throws ConfigError or CheckpointError when what is declared contradicts the shapes, or they do not tell
   */
  deriveConfig(
    format: Exclude<CheckpointSource['format'], 'hf'>,
    config: Config,
    tensors: TensorShapes,
    file: string,
  ): Config;
  /** The same, of a model that TensorFlow.js saved. @throws CheckpointError when the layers are of another model */
  layersConfig(layers: readonly LayerJson[], file: string): Config;
  /** @throws ConfigError when sizes are missing or contradict each other */
  dimensionsOf(config: Config, file?: string): D;
  /** Every tensor with its shape, in the model's order; a tied head is not among them. @throws ConfigError as dimensionsOf */
  expectedTensors(config: Config, file?: string): Map<string, number[]>;
  /** Whether a tensor is never narrowed by a conversion. */
  keepsPrecision(name: string): boolean;
}
