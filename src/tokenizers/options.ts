/** Options of tokenizers, and the tables that check them. */
import { TokenizerError } from '../base/errors.js';
import {
  anyText,
  boolean,
  integer,
  listOf,
  named,
  object,
  oneOf,
  orNull,
  text,
  anything,
} from '../base/option_kinds.js';
import { OptionTable, type Clash, type OptionRules, type OtherNames } from '../base/options.js';
import type { TokenizerBackendName } from './backend.js';
import type { ChatTemplateOptions } from './chat_template.js';
import type { Side } from './padding.js';

/** Options of Tokenizer.from_pretrained. What stands here wins over tokenizer_config.json. */
export interface TokenizerOptions {
  /** 'native' or 'javascript'. Default: native where it loads, else the one in JavaScript; both give the same ids. */
  backend?: TokenizerBackendName;
  /** Which side batches are padded on. Default: padding_side of tokenizer_config.json, else 'left'. */
  padding_side?: Side;
  /** Which end a text is cut at. Default: truncation_side of tokenizer_config.json, else 'right'. */
  truncation_side?: Side;
  /** Ids that truncation leaves where no max_length is given. Default: model_max_length of tokenizer_config.json. */
  model_max_length?: number | null;
  /** Begins a text. This and the tokens below: one that the vocabulary lacks is added behind it, as transformers does. */
  bos_token?: string | null;
  /** Ends a text. */
  eos_token?: string | null;
  /** Stands for what the vocabulary cannot write. */
  unk_token?: string | null;
  /** Separates texts. */
  sep_token?: string | null;
  /** Pads rows of a batch. Where there is none, the end of a text stands in. */
  pad_token?: string | null;
  /** Begins what is to be classified. */
  cls_token?: string | null;
  /** Stands for a word to be guessed. */
  mask_token?: string | null;
  /** Whether a text is encoded as if a space stood before it. For GPT-2's and GPT-NeoX' tokenizers. */
  add_prefix_space?: boolean;
  /** Chat template to use instead of the tokenizer's own. */
  chat_template?: string;
  /** Spaces before punctuation are taken out by decode(). Default: as tokenizer_config.json says, for tokenizers that are no BPE. */
  clean_up_tokenization_spaces?: boolean;
  /** Accepted as transformers 5 accepts it: a tokenizer is what its tokenizer.json says, however it was made. */
  from_slow?: boolean;
  /**
   * Accepted as transformers 5 accepts it: it says how a SentencePiece model is turned into a tokenizer.json, and changes
   * nothing where there is one. Where there is none, a text is read with a space before it, as with `legacy: true`; false
   * is an error there.
   */
  legacy?: boolean;
}

/** Options of encode. */
export interface EncodeOptions {
  /** Adds the tokens that the tokenizer puts around every text (none for GPT-NeoX). Default true. */
  add_special_tokens?: boolean;
  /**
   * Cuts the text so that its ids, with the special tokens around it, are max_length at most. Default false. transformers'
   * names for true are taken, too: they differ for pairs of texts alone.
   */
  truncation?: boolean | 'longest_first' | 'only_first' | 'do_not_truncate' | null;
  /** Most ids of a text; with truncation (or padding: 'max_length' in a batch). Default: the tokenizer's model_max_length. */
  max_length?: number | null;
  /** Which end is cut. Default: the tokenizer's truncation_side. */
  truncation_side?: Side | null;
}

/** Options of pad. */
export interface PadOptions {
  /**
   * true or 'longest': to the longest row; 'max_length': to max_length, which longer rows exceed; false: rows stay uneven.
   * Default true.
   */
  padding?: boolean | 'longest' | 'max_length' | 'do_not_pad';
  /** Length of rows with padding: 'max_length'. Default: the tokenizer's model_max_length. */
  max_length?: number | null;
  /** Default: the tokenizer's padding_side. */
  padding_side?: Side | null;
  /** Lengthens the rows to a multiple of this. */
  pad_to_multiple_of?: number | null;
}

/** Options of batch_encode. */
export interface BatchEncodeOptions extends EncodeOptions, PadOptions {}

/** Options of a call of a tokenizer. As in transformers, nothing is padded unless `padding` asks for it. */
export interface TokenizerCallOptions extends EncodeOptions, Omit<PadOptions, 'padding'> {
  /** true or 'longest': to the longest row; 'max_length': to max_length. Default false. */
  padding?: PadOptions['padding'];
  /** 'tf': int32 tensors [b, t] of TensorFlow.js. Default: lists, one of ids for one text, one of rows for several. */
  return_tensors?: 'tf' | null;
}

/** Options of decode. */
export interface DecodeOptions {
  /** Leaves out special tokens. Default false. */
  skip_special_tokens?: boolean;
  /**
   * Takes out the spaces that some tokenizers put before punctuation and contractions. Default:
   * clean_up_tokenization_spaces of tokenizer_config.json, which BPE tokenizers ignore (it would damage their text).
   */
  clean_up_tokenization_spaces?: boolean | null;
}

/** Options of apply_chat_template, those of the ids among them. */
export interface ApplyChatOptions extends ChatTemplateOptions {
  /** false gives the text instead of its ids. Default true. */
  tokenize?: boolean;
  /** Gives ids and mask as a call of the tokenizer does. Default false. */
  return_dict?: boolean;
  /** 'tf': an int32 tensor [1, t] of TensorFlow.js. */
  return_tensors?: 'tf' | null;
  /** Cuts the ids to max_length. Default false. */
  truncation?: EncodeOptions['truncation'];
  max_length?: number | null;
}

const side = oneOf('left', 'right');
const error = { error: TokenizerError };

/** Rules of from_pretrained; AutoTokenizer's has the hub's beside them. */
export const TOKENIZER_RULES: OptionRules<TokenizerOptions> = {
  backend: { kind: oneOf('native', 'javascript') },
  padding_side: { kind: side },
  truncation_side: { kind: side },
  model_max_length: { kind: orNull(integer({ min: 1 })) },
  bos_token: { kind: orNull(text) },
  eos_token: { kind: orNull(text) },
  unk_token: { kind: orNull(text) },
  sep_token: { kind: orNull(text) },
  pad_token: { kind: orNull(text) },
  cls_token: { kind: orNull(text) },
  mask_token: { kind: orNull(text) },
  add_prefix_space: { kind: boolean },
  chat_template: { kind: anyText },
  clean_up_tokenization_spaces: { kind: boolean },
  from_slow: { kind: boolean },
  legacy: { kind: boolean },
};

export const TOKENIZER_OTHERS: OtherNames = {
  use_fast: { why: 'every tokenizer here is one of the tokenizers library, a fast one', off: [true, null] },
  trust_remote_code: { why: 'nothing of a repository is run as code', off: [false, null] },
  tokenizer_type: { why: 'the files say what a tokenizer is', off: [null] },
  tokenizer_file: { why: 'name the folder that has tokenizer.json', off: [null] },
  gguf_file: { why: 'name a folder or repository that has tokenizer.json', off: [null] },
  add_bos_token: { why: "tokens around texts are what tokenizer.json's post_processor says", off: [null] },
  add_eos_token: { why: "tokens around texts are what tokenizer.json's post_processor says", off: [null] },
  extra_special_tokens: { why: 'write them into tokenizer_config.json', off: [null, []] },
  additional_special_tokens: { why: 'write them into tokenizer_config.json', off: [null, []] },
  split_special_tokens: { why: 'special tokens in a text are always read as such', off: [false, null] },
  max_len: 'model_max_length',
  do_lower_case: { why: "it is what tokenizer.json's normalizer says", off: [null] },
};

export const TOKENIZER_TABLE = new OptionTable<TokenizerOptions>('Tokenizer.from_pretrained()', TOKENIZER_RULES, {
  ...error,
  others: TOKENIZER_OTHERS,
});

const ENCODE_RULES: OptionRules<EncodeOptions> = {
  add_special_tokens: { kind: boolean },
  truncation: { kind: orNull(oneOf(true, false, 'longest_first', 'only_first', 'do_not_truncate')) },
  max_length: { kind: orNull(integer({ min: 0 })) },
  truncation_side: { kind: orNull(side) },
};

const PAD_RULES: OptionRules<PadOptions> = {
  padding: { kind: oneOf(true, false, 'longest', 'max_length', 'do_not_pad') },
  max_length: ENCODE_RULES.max_length,
  padding_side: { kind: orNull(side) },
  pad_to_multiple_of: { kind: orNull(integer({ min: 1 })) },
};

const RETURN_TENSORS = {
  kind: named("'tf' (int32 tensors of TensorFlow.js, the only ones here), or null for lists", orNull(oneOf('tf'))),
};

/** Whether a text is cut. */
export const cuts = ({ truncation }: EncodeOptions): boolean => Boolean(truncation) && truncation !== 'do_not_truncate';
/** Whether rows are padded. */
export const pads = ({ padding }: PadOptions): boolean => Boolean(padding) && padding !== 'do_not_pad';

const given = (value: unknown): boolean => value !== undefined && value !== null;

const uncut: Clash<EncodeOptions> = {
  option: 'truncation_side',
  when: (o) => given(o.truncation_side) && !cuts(o),
  why: 'which has no effect without truncation: true',
};

/** What pads has no effect where nothing is padded. @param padding what is taken where `padding` is not given */
function unpadded(padding: boolean): Clash<PadOptions>[] {
  const none = (o: PadOptions): boolean => !pads({ padding: o.padding ?? padding });
  return (['padding_side', 'pad_to_multiple_of'] as const).map((option) => ({
    option,
    when: (o) => given(o[option]) && none(o),
    why: 'which has no effect without padding: true',
  }));
}

function unused(needed: string): Clash<EncodeOptions & PadOptions> {
  return {
    option: 'max_length',
    when: (o) => given(o.max_length) && !cuts(o) && o.padding !== 'max_length',
    why: `which has no effect without ${needed}`,
  };
}

/** Names of transformers and transformers.js that encoding does not have. */
const ENCODE_OTHERS: OtherNames = {
  text_pair: { why: 'language models read one text a row; join the texts', off: [null] },
  text_target: { why: 'labels of a language model are its input ids; SFTTrainer makes them', off: [null] },
  text_pair_target: { why: 'labels of a language model are its input ids', off: [null] },
  stride: { why: 'cut a text into pieces yourself', off: [0, null] },
  is_split_into_words: { why: 'give texts', off: [false, null] },
  is_pretokenized: { why: 'give texts', off: [false, null] },
  return_attention_mask: { why: 'attention_mask is always given; leave it out of what you pass on', off: [true, null] },
  return_token_type_ids: { why: 'Mamba-2 has no token types', off: [false, null] },
  return_overflowing_tokens: { why: 'what truncation cuts off is not kept', off: [false, null] },
  return_special_tokens_mask: { why: 'compare ids with those of special_tokens', off: [false, null] },
  return_offsets_mapping: { why: 'only ids are given', off: [false, null] },
  return_length: { why: 'a list of ids has its length', off: [false, null] },
  split_special_tokens: { why: 'special tokens in a text are always read as such', off: [false, null] },
  return_tensor: { why: "ids are lists, and tensors with return_tensors: 'tf'", off: [false, null] },
  pad_to_max_length: { why: "use padding: 'max_length'", off: [false, null] },
  verbose: { why: 'there are no warnings', off: [true, false, null] },
  add_prefix_space: { why: 'it is an option of from_pretrained()', off: [null] },
};

const CALL_TENSORS: OtherNames = {
  return_tensors: { why: 'call the tokenizer for tensors: await tokenizer(texts, { return_tensors })', off: [null] },
};

export const ENCODE_TABLE = new OptionTable<EncodeOptions>('encode()', ENCODE_RULES, {
  ...error,
  others: { ...ENCODE_OTHERS, ...CALL_TENSORS, padding: { why: 'use batch_encode()', off: [false, null] } },
  clashes: [uncut, unused('truncation: true')],
});

export const PAD_TABLE = new OptionTable<PadOptions>('pad()', PAD_RULES, {
  ...error,
  others: { ...ENCODE_OTHERS, ...CALL_TENSORS },
  clashes: [...unpadded(true), unused("padding: 'max_length'")],
});

export const BATCH_ENCODE_TABLE = new OptionTable<BatchEncodeOptions>(
  'batch_encode()',
  { ...ENCODE_RULES, ...PAD_RULES },
  {
    ...error,
    others: { ...ENCODE_OTHERS, ...CALL_TENSORS },
    clashes: [uncut, ...unpadded(true), unused("truncation: true or padding: 'max_length'")],
  },
);

export const TOKENIZE_TABLE = new OptionTable<TokenizerCallOptions>(
  'tokenizer()',
  { ...ENCODE_RULES, ...PAD_RULES, return_tensors: RETURN_TENSORS },
  {
    ...error,
    others: ENCODE_OTHERS,
    clashes: [uncut, ...unpadded(false), unused("truncation: true or padding: 'max_length'")],
  },
);

export const DECODE_TABLE = new OptionTable<DecodeOptions>(
  'decode()',
  { skip_special_tokens: { kind: boolean }, clean_up_tokenization_spaces: { kind: orNull(boolean) } },
  {
    ...error,
    others: {
      spaces_between_special_tokens: { why: 'texts are given as the tokenizer has them', off: [true, null] },
      decode_args: { why: 'options stand beside each other', off: [null] },
    },
  },
);

export const CHAT_TABLE = new OptionTable<ApplyChatOptions>(
  'apply_chat_template()',
  {
    chat_template: { kind: orNull(anyText) },
    add_generation_prompt: { kind: boolean },
    continue_final_message: { kind: boolean },
    tools: { kind: orNull(listOf(anything, 'tools')) },
    documents: { kind: orNull(listOf(anything, 'documents')) },
    template_variables: { kind: object },
    tokenize: { kind: boolean },
    return_dict: { kind: boolean },
    return_tensors: RETURN_TENSORS,
    truncation: ENCODE_RULES.truncation,
    max_length: ENCODE_RULES.max_length,
  },
  {
    ...error,
    others: {
      chat_template_kwargs: 'template_variables',
      ...Object.fromEntries(
        ['enable_thinking', 'thinking', 'reasoning_effort', 'date_string', 'builtin_tools', 'custom_tools'].map(
          (name) => [name, `template_variables: { ${name} }`],
        ),
      ),
      conversation: { why: 'it is the first argument', off: [null] },
      padding: { why: 'pad() pads rows of ids', off: [false, null] },
      return_assistant_tokens_mask: { why: 'SFTTrainer masks what is not trained', off: [false, null] },
      tokenizer_kwargs: { why: 'its options stand beside the others', off: [null] },
      return_tensor: { why: "ids are a list, and a tensor with return_tensors: 'tf'", off: [false, null] },
    },
    clashes: [
      ...(['return_dict', 'return_tensors', 'truncation', 'max_length'] as const).map((option) => ({
        option,
        when: (o: ApplyChatOptions) => o.tokenize === false && Boolean(o[option]),
        why: 'which has no effect with tokenize: false: a text has no ids',
      })),
      {
        option: 'max_length',
        when: (o) => given(o.max_length) && !cuts(o),
        why: 'which has no effect without truncation: true',
      },
      {
        option: 'continue_final_message',
        when: (o) => o.continue_final_message === true && o.add_generation_prompt === true,
        why: 'and so is add_generation_prompt. They contradict each other: one leaves the last message open, the other begins a new one',
      },
    ],
  },
);
