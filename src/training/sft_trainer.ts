/** SFTTrainer: supervised fine-tuning from text, by the names of trl. */
import { ArgumentError } from '../base/errors.js';
import type { CausalLM } from '../models/causal_lm.js';
import { get_peft_model, type LoraConfig, type LoraConfigFields, PeftModel } from '../peft/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { TrainerCallback } from './callbacks.js';
import type { TrainingArguments } from './arguments.js';
import {
  type Example,
  type ExampleSource,
  tokenizeExample,
  tokenizeExamples,
  type TokenizeOptions,
} from './data/index.js';
import type { TrainableModel } from './trainable.js';
import { Trainer } from './trainer.js';

/** Texts: a list, or a stream that can be begun again. */
export type TextSource = readonly Example[] | AsyncIterable<Example> | (() => AsyncIterable<Example>);

/** Options of SFTTrainer beside those of the run. */
export interface SFTOptions extends TokenizeOptions {
  /** Whole documents packed into rows of max_length, the state starting anew at every border. Default false. */
  packing?: boolean;
}

export interface SFTTrainerOptions {
  model: TrainableModel;
  /** The tokenizer. */
  processing_class: Tokenizer;
  args: { output_dir: string } & Partial<TrainingArguments> & SFTOptions;
  /** Examples with text, with prompt and completion, or with messages. */
  train_dataset?: TextSource;
  eval_dataset?: TextSource;
  /** Puts a fresh adapter on the model and trains it alone. */
  peft_config?: LoraConfig | Partial<LoraConfigFields>;
  callbacks?: readonly TrainerCallback[];
  on_warning?: (message: string) => void;
}

/**
 * Fine-tunes a model on text: tokenises, leaves prompts out of the loss, pads or packs, and trains as Trainer does.
 *
 * @throws ArgumentError for wrong options
 * @example
 * const trainer = new SFTTrainer({
 *   model,
 *   processing_class: tokenizer,
 *   args: { output_dir: 'out', learning_rate: 2e-3, max_length: 128 },
 *   train_dataset: await loadExamples('quotes.jsonl'),
 *   peft_config: { r: 8, target_modules: ['in_proj', 'embeddings'] },
 * });
 * await trainer.train();
 */
export class SFTTrainer extends Trainer {
  private readonly texts: { train: TextSource | null; eval: TextSource | null };
  private readonly tokenizer: Tokenizer;
  private readonly tokenizing: TokenizeOptions;
  private readonly made = new Map<TextSource, ExampleSource>();

  constructor(options: SFTTrainerOptions) {
    const { dataset_text_field, max_length = 1024, completion_only_loss, append_eos, packing, ...args } = options.args;
    if (max_length !== null && !(Number.isInteger(max_length) && max_length > 1)) {
      throw new ArgumentError(`SFTTrainer: max_length is ${max_length}, expected an integer above 1, or null`, {
        max_length,
      });
    }
    if (packing && max_length === null) throw new ArgumentError('SFTTrainer: packing needs max_length', {});
    if (options.peft_config && options.model instanceof PeftModel)
      throw new ArgumentError('SFTTrainer: the model has an adapter already; leave out peft_config', {});
    const model = options.peft_config
      ? get_peft_model(options.model as CausalLM, options.peft_config, {
          seed: options.args.seed ?? 42,
          on_warning: options.on_warning,
        })
      : options.model;
    super({
      model,
      args,
      callbacks: options.callbacks,
      on_warning: options.on_warning,
      packing,
      // made from the texts when needed, see evalData(); that there is one is checked now
      eval_dataset: options.eval_dataset && [],
      max_length: max_length ?? undefined,
      pad_token_id: options.processing_class.pad_token_id ?? options.processing_class.eos_token_id ?? undefined,
    });
    this.tokenizer = options.processing_class;
    this.tokenizing = { dataset_text_field, max_length, completion_only_loss, append_eos };
    this.texts = { train: options.train_dataset ?? null, eval: options.eval_dataset ?? null };
  }

  /** Tokenised once and kept for lists; on the fly for streams. */
  private async tokenized(texts: TextSource): Promise<ExampleSource> {
    const { tokenizer, tokenizing } = this;
    let source = this.made.get(texts);
    if (!source) {
      if (Array.isArray(texts)) source = await tokenizeExamples(texts as readonly Example[], tokenizer, tokenizing);
      else
        source = async function* () {
          for await (const example of typeof texts === 'function' ? texts() : (texts as AsyncIterable<Example>)) {
            const one = await tokenizeExample(example, tokenizer, tokenizing);
            if (one) yield one;
          }
        };
      if (Array.isArray(source) && source.length === 0) {
        throw new ArgumentError(
          'SFTTrainer: no example has anything to learn from; is max_length shorter than the prompts?',
          {},
        );
      }
      this.made.set(texts, source);
    }
    return source;
  }

  protected override async trainData(): Promise<ExampleSource> {
    if (!this.texts.train) throw new ArgumentError('SFTTrainer: train() needs train_dataset', {});
    return this.tokenized(this.texts.train);
  }

  protected override async evalData(): Promise<ExampleSource | null> {
    return this.texts.eval && this.tokenized(this.texts.eval);
  }
}
