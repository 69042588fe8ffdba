/** SFTConfig: TrainingArguments with what SFTTrainer needs to know of its texts, by the names of trl. */
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import { TrainingArguments } from './arguments.js';
import { ARGUMENT_CLASHES, ARGUMENT_OTHERS, ARGUMENT_RULES, type ArgumentFields } from './arguments_table.js';
import { TOKENIZE_RULES, type TokenizeOptions } from './data/tokenize.js';

/** Options of SFTTrainer beside those of the run. */
export interface SFTOptions extends TokenizeOptions {
  /** Whole documents packed into rows of max_length, the state starting anew at every border. Default false. */
  packing?: boolean;
}

/** The fields of SFTConfig. */
export interface SFTFields extends ArgumentFields, Required<SFTOptions> {}

/** What SFTConfig is made from, and what SFTTrainer takes in its place. */
export type SFTConfigOptions = { output_dir: string } & Partial<SFTFields>;

const IN_FLOAT32 = "texts are cut at their end; 'keep_start' is all there is";

/** Names of trl, of this version and of earlier ones, that are no options here. */
const SFT_OTHERS: OtherNames = {
  max_seq_length: 'max_length',
  eos_token: { why: "set the tokenizer's eos_token", off: [null] },
  pad_token: { why: "set the tokenizer's pad_token", off: [null] },
  chat_template_path: { why: "set the tokenizer's chat_template", off: [null] },
  model_init_kwargs: { why: 'pass a loaded model: from_pretrained() takes the options', off: [null] },
  trust_remote_code: { why: 'no code of a repository is ever run', off: [false] },
  router_aux_loss_coef: { why: 'a Mamba-2 has no experts', off: [null, 0] },
  dataset_kwargs: { why: 'examples with input_ids are taken as they are', off: [null] },
  dataset_num_proc: { why: 'texts are tokenised in this process', off: [null, 1] },
  dataset_batch_size: { why: 'texts are tokenised one by one', off: [null, 1000] },
  num_of_sequences: { why: 'whole examples are packed, best fit first' },
  chars_per_token: { why: 'whole examples are packed, best fit first' },
  truncation_mode: { why: IN_FLOAT32, off: ['keep_start'] },
  shuffle_dataset: { why: 'the order is new in every epoch anyhow', off: [true, false] },
  packing_strategy: { why: 'whole examples are packed, best fit first, and cut at max_length', off: ['bfd'] },
  padding_free: { why: 'packing: true leaves little padding', off: [false] },
  pad_to_multiple_of: { why: 'rows are padded to a few lengths: 32, 48, 64, 96, 128, …', off: ['auto', null] },
  eval_packing: { why: 'evaluation is packed where training is', off: [null] },
  completions_only_loss: 'completion_only_loss',
  assistant_only_loss: {
    why: 'the loss is on all of a chat; give prompt and completion as lists of messages',
    off: [false],
  },
  loss_type: { why: 'the loss is the mean cross-entropy of the labels', off: ['nll', 'chunked_nll'] },
  activation_offloading: { why: 'gradient_checkpointing: true keeps less', off: [false] },
  use_liger: { why: 'which kernels run is chosen by the device', off: [false] },
};

const SFT_RULES: OptionRules<Partial<SFTFields>> = {
  ...ARGUMENT_RULES,
  // trl's default; that of other trainers is 5e-5
  learning_rate: { ...ARGUMENT_RULES.learning_rate, default: 2e-5 },
  ...TOKENIZE_RULES,
  packing: { kind: kinds.boolean, default: false },
};

/** Options of SFTConfig, and of `args` of an SFTTrainer. */
const SFT_TABLE = new OptionTable<Partial<SFTFields>>('SFTConfig', SFT_RULES, {
  others: { ...ARGUMENT_OTHERS, ...SFT_OTHERS },
  clashes: [
    ...ARGUMENT_CLASHES,
    { option: 'packing', when: (o) => o.packing === true && o.max_length === null, why: 'and max_length is null: packing needs a length of rows' }, // prettier-ignore
  ],
});

/* eslint-disable @typescript-eslint/no-unsafe-declaration-merging, @typescript-eslint/no-empty-object-type -- the options are plain, mutable fields */
/**
 * Options of a fine-tuning run on texts: TrainingArguments and what trl adds to them. Of trl's other defaults
 * learning_rate is the same (2e-5); bf16 and gradient_checkpointing stay false until they are asked for.
 *
 * @example
 * const args = new SFTConfig({ output_dir: './results', max_length: 128, packing: true });
 */
export interface SFTConfig extends SFTFields {}
export class SFTConfig extends TrainingArguments {
  /** @throws ArgumentError naming an unknown option, a wrong value, or one without effect */

  constructor(options: SFTConfigOptions) {
    super(options);
  }

  protected override filled(options: SFTConfigOptions): Partial<SFTFields> {
    SFT_TABLE.checkObject(options);
    return SFT_TABLE.fill(options);
  }

  override to_dict(): SFTFields {
    return { ...this };
  }
}
/* eslint-enable */

/** As trainingArguments(), for an SFTTrainer: TrainingArguments are taken with the defaults for texts. */
export function sftConfig(given: SFTConfigOptions): SFTConfig {
  if (!(given instanceof SFTConfig)) return new SFTConfig(given instanceof TrainingArguments ? { ...given } : given);
  SFT_TABLE.check(given);
  return given;
}
