/** Options of pipeline() and their table. */
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import { HUB_NAMES } from '../checkpoints/hub_options.js';
import type { PretrainedOptions } from '../models/mamba2/index.js';
import { PRETRAINED_OTHERS, PRETRAINED_RULES } from '../models/mamba2/pretrained_options.js';
import { GENERATION_TABLE } from '../generation/option_rules.js';
import type { Tokenizer, TokenizerOptions } from '../tokenizers/index.js';

/** Options of pipeline(): how to load the model, when it is given as a folder or a name, and its tokenizer. */
export interface PipelineOptions extends PretrainedOptions {
  /** A tokenizer, its folder, or a repository of the hub that has one (then its main revision). Default: the model's. */
  tokenizer?: Tokenizer | string;
  /** Options for reading the tokenizer. */
  tokenizer_options?: TokenizerOptions;
  /** Further options of loading the model, as transformers takes them apart; those beside it win. */
  model_kwargs?: PretrainedOptions;
  /** Inputs that calls run together, where they do not say. Default 1. */
  batch_size?: number;
}

const RULES: OptionRules<PipelineOptions> = {
  ...PRETRAINED_RULES,
  tokenizer: {
    kind: kinds.either(kinds.text, kinds.named('a Tokenizer', kinds.having('a Tokenizer', 'encode', 'decode'))),
  },
  tokenizer_options: { kind: kinds.object },
  model_kwargs: { kind: kinds.object },
  batch_size: { kind: kinds.integer({ min: 1 }), default: 1 },
};

const ONE_KIND = 'a model of this package is a text model; pass tokenizer';

/** Options of the calls, which transformers' pipeline() takes too. */
const OF_CALLS = Object.fromEntries(
  [...GENERATION_TABLE.names, 'return_full_text', 'return_tensors', 'prefix', 'pooling', 'normalize', 'streamer'].map(
    (name) => [name, { why: `it belongs to the call: pipe(text, { ${name}: … })` }],
  ),
);

const OTHERS: OtherNames = {
  ...OF_CALLS,
  ...PRETRAINED_OTHERS,
  framework: { why: 'there is one framework, TensorFlow.js', off: ['tf', 'tfjs'] },
  use_fast: { why: 'tokenizer_options: { backend } chooses the implementation', off: [true] },
  task: { why: 'it is the first argument: pipeline(task, model, options)' },
  model: { why: 'it is the second argument: pipeline(task, model, options)' },
  feature_extractor: { why: ONE_KIND },
  image_processor: { why: ONE_KIND },
  processor: { why: ONE_KIND },
  pipeline_class: { why: 'there are two pipelines, chosen by the task' },
  num_workers: { why: 'texts are prepared in one thread; batch_size runs several together', off: [0, 1] },
  quantized: { why: 'pass a quantised checkpoint, or quantization_config', off: [false] },
};

/** Options of pipeline(). What they ask of loading is judged once more by from_pretrained(), which knows how they go together. */
export const PIPELINE_TABLE = new OptionTable<PipelineOptions>('pipeline()', RULES, {
  others: OTHERS,
  clashes: [
    {
      option: 'tokenizer_options',
      when: ({ tokenizer }) => tokenizer !== undefined && typeof tokenizer !== 'string',
      why: 'which have no effect beside a tokenizer that is made already',
    },
  ],
});

/** Options that have an effect beside a model that is loaded already, too. */
const BESIDE_MODEL: readonly string[] = ['tokenizer', 'tokenizer_options', 'batch_size'];

/**
 * Refuses options of loading where there is nothing to load.
 * @throws ArgumentError naming the first
 */
export function refuseIdle(options: PipelineOptions): void {
  // a tokenizer by name is fetched from the hub
  const fetches: readonly string[] = typeof options.tokenizer === 'string' ? HUB_NAMES : [];
  const idle = Object.entries(options).find(
    ([name, value]) => value !== undefined && !BESIDE_MODEL.includes(name) && !fetches.includes(name),
  );
  if (!idle) return;
  throw new ArgumentError(
    `pipeline(): ${idle[0]} has no effect, since the model is loaded already. Give it to from_pretrained(), or pass the model's name.`,
    { option: idle[0], got: idle[1] },
  );
}
