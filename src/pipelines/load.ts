import { ArgumentError } from '../base/errors.js';
import { omit } from '../base/omit.js';
import { quote } from '../base/quote.js';
import type { GenerationConfig, GenerationEngine } from '../generation/index.js';
import { locateModel } from '../models/locate.js';
import type { PretrainedOptions } from '../models/mamba2/index.js';
import { Tokenizer } from '../tokenizers/index.js';
import { type PipelineOptions, refuseIdle } from './options.js';

/** What the pipelines ask of a language model: a CausalLM, or anything that generates like it. */
export interface PipelineModel {
  readonly config: object;
  readonly generation_config: GenerationConfig;
  engine(): Promise<GenerationEngine>;
  dispose(): void;
}

/** A model and its tokenizer, and whether the model is ours to dispose of. */
export interface Loaded<M> {
  model: M;
  tokenizer: Tokenizer;
  owned: boolean;
  /** Inputs that calls run together, where they do not say. */
  batch_size: number;
}

async function loadTokenizer(from: string, options: PipelineOptions, ofModel: boolean): Promise<Tokenizer> {
  // a repository apart has revisions of its own
  const elsewhere = omit(options, 'revision');
  return Tokenizer.from_pretrained(
    await locateModel(from, ofModel ? options : elsewhere, 'tokenizer'),
    options.tokenizer_options,
  );
}

/**
 * Finds the model and the tokenizer of a pipeline.
 *
 * @param options checked
 * @param loadModel reads a model
 * @throws ArgumentError when a model is given and no tokenizer; whatever reading throws; the signal's reason
 */
export async function loadParts<M extends { dispose(): void }>(
  modelOrName: M | string | undefined,
  options: PipelineOptions,
  loadModel: (name: string, options: PretrainedOptions) => Promise<M>,
): Promise<Loaded<M>> {
  const { tokenizer: given, tokenizer_options, model_kwargs, batch_size = 1, ...beside } = options;
  const named = typeof modelOrName === 'string';
  if (!named) {
    refuseModel(modelOrName);
    refuseIdle(options);
  }
  const from = given ?? (named ? modelOrName : undefined);
  if (from === undefined) {
    throw new ArgumentError(
      'pipeline() got a model and no tokenizer. Pass the option tokenizer: a Tokenizer, or the folder of one.',
      { option: 'tokenizer' },
    );
  }
  const loading = { ...model_kwargs, ...beside };
  const { signal } = loading;
  signal?.throwIfAborted();
  // The tokenizer first: it is small, and a folder without one should say so before the weights are read.
  const tokenizer =
    typeof from === 'string'
      ? await loadTokenizer(from, { ...loading, tokenizer_options }, !named || from === modelOrName)
      : from;
  if (!named) return { model: modelOrName!, tokenizer, owned: false, batch_size };
  signal?.throwIfAborted();
  const model = await loadModel(modelOrName, loading);
  if (signal?.aborted) model.dispose();
  signal?.throwIfAborted();
  return { model, tokenizer, owned: true, batch_size };
}

/** @throws ArgumentError for what is no model */
function refuseModel(model: unknown): void {
  if (typeof (model as Partial<PipelineModel> | null | undefined)?.engine === 'function') return;
  throw new ArgumentError(
    model === undefined || model === null
      ? "pipeline() got no model, and there is no default one. Pass a folder, a model on the hub ('state-spaces/mamba2-130m'), or 'tiny-books-mamba2', which travels in this package."
      : `pipeline() got ${quote(model)} where the model belongs; expected a folder, a name on the hub, or a model.`,
    { option: 'model', got: model },
  );
}
