/** SFTTrainer: supervised fine-tuning from text, by the names of trl. */
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import { quote } from '../base/quote.js';
import type { CausalLM } from '../models/causal_lm.js';
import {
  get_peft_model,
  type LoraConfig,
  type LoraConfigFields,
  type LoraConfigNotes,
  PeftModel,
} from '../peft/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { TrainerCallback } from './callbacks.js';
import {
  type Example,
  type ExampleSource,
  tokenizeExample,
  tokenizeExamples,
  type TokenizeOptions,
} from './data/index.js';
import { TOKENIZE_RULES } from './data/tokenize.js';
import { Dataset } from './datasets/index.js';
import { type SFTConfig, sftConfig, type SFTConfigOptions } from './sft_config.js';
import type { TrainableModel } from './trainable.js';
import { Trainer } from './trainer.js';
import { requireOptions, SHARED_OTHERS, SHARED_RULES, TOKENIZER_CLASH } from './trainer_options.js';

/** Texts: a list, a data set, or a stream that can be begun again. */
export type TextSource = readonly Example[] | Dataset | AsyncIterable<Example> | (() => AsyncIterable<Example>);

export interface SFTTrainerOptions {
  model: TrainableModel;
  /** SFTConfig or TrainingArguments, or their fields. */
  args: SFTConfigOptions;
  /** The tokenizer. */
  processing_class?: Tokenizer;
  /** processing_class by its older name in trl. One of the two is needed. */
  tokenizer?: Tokenizer;
  /** Examples with text, with prompt and completion, or with messages. */
  train_dataset?: TextSource;
  eval_dataset?: TextSource;
  /** dataset_text_field of args, which may stand here as well. */
  dataset_text_field?: string;
  /** Makes the text of an example. */
  formatting_func?: (example: Example) => string;
  /** Puts a fresh adapter on the model and trains it alone. */
  peft_config?: LoraConfig | (Partial<LoraConfigFields> & LoraConfigNotes);
  callbacks?: readonly TrainerCallback[];
  on_warning?: (message: string) => void;
}

const IN_ARGS = 'put it into args: new SFTConfig({ … })';

const SFT_TRAINER_TABLE = new OptionTable<SFTTrainerOptions>(
  'new SFTTrainer()',
  {
    ...SHARED_RULES,
    dataset_text_field: TOKENIZE_RULES.dataset_text_field,
    formatting_func: { kind: kinds.func },
    peft_config: { kind: kinds.named('a LoraConfig, or an object of its fields', kinds.object) },
  },
  {
    others: {
      ...SHARED_OTHERS,
      max_seq_length: { why: 'it is called max_length here, and is an option of args' },
      max_length: { why: IN_ARGS },
      packing: { why: IN_ARGS, off: [false] },
      eval_packing: { why: 'evaluation is packed where training is', off: [null] },
      dataset_num_proc: { why: 'texts are tokenised in this process', off: [null, 1] },
      dataset_batch_size: { why: 'texts are tokenised one by one', off: [null, 1000] },
      dataset_kwargs: { why: 'examples with input_ids are taken as they are', off: [null] },
      model_init_kwargs: { why: 'pass a loaded model: from_pretrained() takes the options', off: [null] },
      neftune_noise_alpha: { why: 'no noise is added to embeddings', off: [null] },
      num_of_sequences: { why: 'whole examples are packed, best fit first' },
      chars_per_token: { why: 'whole examples are packed, best fit first' },
      infinite: { why: 'a function that makes a stream begins it again in every epoch', off: [null] },
      lora_config: 'peft_config',
    },
    clashes: [
      TOKENIZER_CLASH,
      {
        option: 'dataset_text_field',
        when: ({ dataset_text_field: field, args }) => {
          const other = (args as Partial<SFTConfigOptions> | undefined)?.dataset_text_field;
          return other !== undefined && other !== 'text' && other !== field;
        },
        why: 'and that of args is another: pass it once',
      },
      {
        option: 'formatting_func',
        when: ({ dataset_text_field }) => dataset_text_field !== undefined,
        why: 'and dataset_text_field is given too: pass either',
      },
    ],
  },
);

/**
 * Fine-tunes a model on text: tokenises, leaves prompts out of the loss, pads or packs, and trains as Trainer does.
 *
 * @throws ArgumentError for wrong options
 * @example
 * const trainer = new SFTTrainer({
 *   model,
 *   processing_class: tokenizer,
 *   args: new SFTConfig({ output_dir: 'out', learning_rate: 2e-3, max_length: 128 }),
 *   train_dataset: await loadExamples('quotes.jsonl'),
 *   peft_config: { r: 8, target_modules: ['in_proj', 'embeddings'] },
 * });
 * await trainer.train();
 */
export class SFTTrainer extends Trainer {
  override readonly args: SFTConfig;
  private readonly texts: { train: TextSource | null; eval: TextSource | null };
  private readonly tokenizer: Tokenizer;
  private readonly tokenizing: TokenizeOptions;
  private readonly format: ((example: Example) => string) | undefined;
  private readonly made = new Map<TextSource, ExampleSource>();

  constructor(options: SFTTrainerOptions) {
    SFT_TRAINER_TABLE.check(options);
    requireOptions(SFT_TRAINER_TABLE, options, ['model', 'args']);
    const config = sftConfig(options.args);
    const { packing, max_length, completion_only_loss, append_eos, ...rest } = config.to_dict();
    const { dataset_text_field: field, ...args } = rest;
    const tokenizer = options.processing_class ?? options.tokenizer;
    if (!tokenizer) {
      throw new ArgumentError(
        'new SFTTrainer() needs processing_class (or tokenizer): the tokenizer, AutoTokenizer.from_pretrained().',
        { option: 'processing_class' },
      );
    }
    if (options.peft_config && options.model instanceof PeftModel)
      throw new ArgumentError('SFTTrainer: the model has an adapter already; leave out peft_config', {});
    const model = options.peft_config
      ? get_peft_model(options.model as CausalLM, options.peft_config, {
          seed: config.seed,
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
      pad_token_id: tokenizer.pad_token_id ?? tokenizer.eos_token_id ?? undefined,
    });
    this.args = config;
    this.tokenizer = tokenizer;
    const dataset_text_field = options.formatting_func ? 'text' : (options.dataset_text_field ?? field);
    this.tokenizing = { dataset_text_field, max_length, completion_only_loss, append_eos };
    this.format = options.formatting_func;
    const rows = (source: TextSource | undefined): TextSource | null =>
      source instanceof Dataset ? source.to_list() : (source ?? null);
    this.texts = { train: rows(options.train_dataset), eval: rows(options.eval_dataset) };
  }

  /** An example as its text, where a function of the user's makes it. @throws ArgumentError unless that gives a text */
  private formatted(example: Example): Example {
    if (!this.format) return example;
    const text: unknown = this.format(example);
    if (typeof text === 'string') return { text };
    throw new ArgumentError(`formatting_func gave ${quote(text)}; expected the text of one example.`, { got: text });
  }

  /** Tokenised once and kept for lists; on the fly for streams. */
  private async tokenized(texts: TextSource): Promise<ExampleSource> {
    const { tokenizer, tokenizing } = this;
    let source = this.made.get(texts);
    if (!source) {
      if (Array.isArray(texts))
        source = await tokenizeExamples(
          texts.map((each) => this.formatted(each as Example)),
          tokenizer,
          tokenizing,
        );
      else {
        const format = (example: Example): Example => this.formatted(example);
        source = async function* () {
          for await (const example of typeof texts === 'function' ? texts() : (texts as AsyncIterable<Example>)) {
            const one = await tokenizeExample(format(example), tokenizer, tokenizing);
            if (one) yield one;
          }
        };
      }
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

  protected override async given(data: unknown): Promise<ExampleSource> {
    return this.tokenized((await super.given(data)) as TextSource);
  }

  /** As Trainer's, of texts as well. */
  override evaluate(data?: TextSource | Parameters<Trainer['evaluate']>[0]): ReturnType<Trainer['evaluate']> {
    return super.evaluate(data as ExampleSource);
  }
}
