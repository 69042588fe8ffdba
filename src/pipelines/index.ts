/**
 * pipeline(): a model, its tokenizer and a task in one function. Tasks: text-generation and feature-extraction.
 */
import { ArgumentError } from '../base/errors.js';
import { featureExtractionPipeline } from './feature_extraction.js';
import type { FeatureExtractionPipeline, FeatureModel } from './feature_extraction.js';
import { loadParts } from './load.js';
import type { PipelineModel, PipelineOptions } from './load.js';
import { textGenerationPipeline } from './text_generation.js';
import type { TextGenerationPipeline } from './text_generation.js';

export type { PipelineModel, PipelineOptions } from './load.js';
export type {
  Chat,
  GeneratedChat,
  GeneratedText,
  TextGenerationOptions,
  TextGenerationOutput,
  TextGenerationPipeline,
} from './text_generation.js';
export { perplexity } from './perplexity.js';
export type { PerplexityOptions, PerplexityResult, ScoringModel } from './perplexity.js';
export type { FeatureExtractionOptions, FeatureExtractionPipeline, FeatureModel } from './feature_extraction.js';

const loadModel = async (dir: string, options: Record<string, unknown>): Promise<PipelineModel & FeatureModel> => {
  const { AutoModelForCausalLM } = await import('../models/auto/index.js');
  return AutoModelForCausalLM.from_pretrained(dir, options);
};

/**
 * Puts a model to a task.
 *
 * @example
 * const generator = await pipeline('text-generation', 'models/tiny-books-mamba2');
 * const [{ generated_text }] = await generator('Once upon a time', { max_new_tokens: 40 });
 * generator.dispose();
 *
 * @param task 'text-generation' or 'feature-extraction'
 * @param model the model's folder, or a model (then with the option tokenizer)
 * @param options dtype, device, engine … for loading the model; tokenizer
 * @throws ArgumentError for an unknown task, or a model without a tokenizer; whatever loading throws
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
  switch (task) {
    case 'text-generation':
      return textGenerationPipeline(await loadParts(model as PipelineModel | string, options, loadModel));
    case 'feature-extraction':
      return featureExtractionPipeline(await loadParts(model as FeatureModel | string, options, loadModel));
    default:
      throw new ArgumentError(
        `pipeline() has no task ${JSON.stringify(task)}; expected 'text-generation' or 'feature-extraction'.`,
        { option: 'task', got: task },
      );
  }
}
