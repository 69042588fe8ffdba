/**
 * pipeline(): a model, its tokenizer and a task in one function. Tasks: text-generation and feature-extraction.
 */
import { ArgumentError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import type { PretrainedOptions } from '../models/mamba2/index.js';
import { featureExtractionPipeline } from './feature_extraction.js';
import type { FeatureExtractionPipeline, FeatureModel } from './feature_extraction.js';
import { loadParts } from './load.js';
import type { PipelineModel } from './load.js';
import { PIPELINE_TABLE, type PipelineOptions } from './options.js';
import { textGenerationPipeline } from './text_generation.js';
import type { TextGenerationPipeline } from './text_generation.js';

export type { PipelineModel } from './load.js';
export type { PipelineOptions } from './options.js';
export type { Chat, TextGenerationPipeline } from './text_generation.js';
export type {
  GeneratedChat,
  GeneratedText,
  GenerationCounts,
  TextGenerationOptions,
  TextGenerationOutput,
} from './text_generation_options.js';
export type { GenerationWarmupOptions, WarmupOptions } from '../generation/warmup.js';
export { perplexity } from './perplexity.js';
export type { PerplexityOptions, PerplexityResult, ScoringModel } from './perplexity.js';
export type { FeatureExtractionOptions, FeatureExtractionPipeline, FeatureModel } from './feature_extraction.js';

const loadModel = async (name: string, options: PretrainedOptions): Promise<PipelineModel> => {
  const { AutoModelForCausalLM } = await import('../models/auto/index.js');
  return AutoModelForCausalLM.from_pretrained(name, options);
};

const TASKS: readonly string[] = ['text-generation', 'feature-extraction'];

/**
 * Puts a model to a task.
 *
 * @example
 * const generator = await pipeline('text-generation', 'models/tiny-books-mamba2');
 * const [{ generated_text }] = await generator('Once upon a time', { max_new_tokens: 40 });
 * generator.dispose();
 *
 * @param task 'text-generation' or 'feature-extraction'
 * @param model a folder, a model on the hub, or a model (then with the option tokenizer)
 * @param options dtype, device, engine … for loading the model; tokenizer
 * @throws ArgumentError for an unknown option or task, a wrong value, no model, or a model without a tokenizer; whatever loading throws
 */
export function pipeline(
  task: 'text-generation',
  model: PipelineModel | string,
  options?: PipelineOptions,
): Promise<TextGenerationPipeline>;
export function pipeline(
  task: 'feature-extraction',
  model: FeatureModel | string,
  options?: PipelineOptions,
): Promise<FeatureExtractionPipeline>;
export async function pipeline(
  task: string,
  model: PipelineModel | FeatureModel | string,
  options: PipelineOptions = {},
): Promise<TextGenerationPipeline | FeatureExtractionPipeline> {
  PIPELINE_TABLE.check(options);
  if (!TASKS.includes(task)) {
    const asked =
      typeof task === 'string' ? `pipeline() has no task ${quote(task)}` : `pipeline() got ${quote(task)} for the task`;
    throw new ArgumentError(
      `${asked}; expected 'text-generation' or 'feature-extraction', then the model: pipeline('text-generation', 'tiny-books-mamba2').`,
      { option: 'task', got: task },
    );
  }
  if (task === 'feature-extraction') return featureExtractionPipeline(await loadParts(model, options, loadModel));
  return textGenerationPipeline(await loadParts(model as PipelineModel | string, options, loadModel));
}
