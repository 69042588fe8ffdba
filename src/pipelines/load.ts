import { locateModel } from '../checkpoints/index.js';
import { ArgumentError } from '../base/errors.js';
import type { GenerationConfig, GenerationEngine } from '../generation/index.js';
import { Tokenizer } from '../tokenizers/index.js';
import type { TokenizerOptions } from '../tokenizers/index.js';

/** What the pipelines ask of a language model: Mamba2ForCausalLM, or anything that generates like it. */
export interface PipelineModel {
  readonly config: object;
  readonly generation_config: GenerationConfig;
  engine(): Promise<GenerationEngine>;
  dispose(): void;
}

/** Options of pipeline(): how to load the model, when it is given as a folder or a name, and its tokenizer. */
export interface PipelineOptions {
  /** A tokenizer, or the folder of one. Default: the model's folder. */
  tokenizer?: Tokenizer | string;
  /** Options for reading the tokenizer. */
  tokenizer_options?: TokenizerOptions;
  /** Whatever AutoModelForCausalLM.from_pretrained takes: dtype, device, engine … */
  [option: string]: unknown;
}

/** A model and its tokenizer, and whether the model is ours to dispose of. */
export interface Loaded<M> {
  model: M;
  tokenizer: Tokenizer;
  owned: boolean;
}

/**
 * Finds the model and the tokenizer of a pipeline.
 *
 * @param loadModel reads a model folder
 * @throws ArgumentError when a model is given and no tokenizer; whatever reading throws
 */
export async function loadParts<M extends { dispose(): void }>(
  modelOrName: M | string,
  options: PipelineOptions,
  loadModel: (dir: string, options: Record<string, unknown>) => Promise<M>,
): Promise<Loaded<M>> {
  const { tokenizer: given, tokenizer_options, ...loading } = options;
  const located = typeof modelOrName === 'string' ? await locateModel(modelOrName, loading) : null;
  const modelOrDir = located ? located.dir : (modelOrName as M);
  const rest: Record<string, unknown> = located ? located.rest : loading;
  const from = given ?? (typeof modelOrDir === 'string' ? modelOrDir : undefined);
  if (from === undefined) {
    throw new ArgumentError(
      'pipeline() got a model and no tokenizer. Pass the option tokenizer: a Tokenizer, or the folder of one.',
      { option: 'tokenizer' },
    );
  }
  // The tokenizer first: it is small, and a folder without one should say so before the weights are read.
  const tokenizer = typeof from === 'string' ? await Tokenizer.from_pretrained(from, tokenizer_options) : from;
  if (typeof modelOrDir !== 'string') return { model: modelOrDir, tokenizer, owned: false };
  return { model: await loadModel(modelOrDir, rest), tokenizer, owned: true };
}
