import type { HubOptions } from '../checkpoints/index.js';
import { ArgumentError } from '../base/errors.js';
import type { GenerationConfig, GenerationEngine } from '../generation/index.js';
import { locateModel } from '../models/locate.js';
import { Tokenizer } from '../tokenizers/index.js';
import type { TokenizerOptions } from '../tokenizers/index.js';

/** What the pipelines ask of a language model: a CausalLM, or anything that generates like it. */
export interface PipelineModel {
  readonly config: object;
  readonly generation_config: GenerationConfig;
  engine(): Promise<GenerationEngine>;
  dispose(): void;
}

/** Options of pipeline(): how to load the model, when it is given as a folder or a name, and its tokenizer. */
export interface PipelineOptions {
  /** A tokenizer, its folder, or a repository of the hub that has one. Default: the model's. */
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

async function loadTokenizer(from: string, hub: HubOptions, options: TokenizerOptions | undefined): Promise<Tokenizer> {
  const { dir } = await locateModel(from, hub, 'tokenizer');
  return Tokenizer.from_pretrained(dir, options);
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
  const from = given ?? (typeof modelOrName === 'string' ? modelOrName : undefined);
  if (from === undefined) {
    throw new ArgumentError(
      'pipeline() got a model and no tokenizer. Pass the option tokenizer: a Tokenizer, or the folder of one.',
      { option: 'tokenizer' },
    );
  }
  // The tokenizer first: it is small, and a folder without one should say so before the weights are read.
  const tokenizer = typeof from === 'string' ? await loadTokenizer(from, loading, tokenizer_options) : from;
  if (typeof modelOrName !== 'string') return { model: modelOrName, tokenizer, owned: false };
  const { dir, rest } = await locateModel(modelOrName, loading);
  return { model: await loadModel(dir, rest), tokenizer, owned: true };
}
