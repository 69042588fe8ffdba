/** Tables of what forward() and prefill() take. */
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import type { BackboneInputs } from './backbone.js';
import type { CausalLMInputs } from './causal_lm.js';
import type { PrefillOptions } from './stateful.js';

// ids, masks and labels are judged by their readers, which say where a value is wrong
const { anything, boolean } = kinds;
const cache = { kind: kinds.having('a cache that a forward() before returned', 'advance', 'dispose') };

const BACKBONE_RULES: OptionRules<BackboneInputs> = {
  input_ids: { kind: anything },
  inputs_embeds: { kind: kinds.having('a tensor [b, t, d]', 'dataSync', 'dispose') },
  attention_mask: { kind: anything },
  cache,
  use_cache: { kind: boolean },
  output_hidden_states: { kind: boolean },
};

const OTHERS: OtherNames = {
  past_key_values: 'cache',
  cache_params: 'cache',
  num_logits_to_keep: 'logits_to_keep',
  inputs: 'input_ids',
  mask: 'attention_mask',
  return_dict: { why: 'forward() always returns an object', off: [true, null] },
  output_attentions: { why: 'the model has no attention', off: [false, null] },
  position_ids: { why: 'the model has no positions', off: [null] },
  cache_position: { why: 'a recurrent state knows where it is', off: [null] },
  token_type_ids: { why: 'the model has no token types', off: [null] },
  encoder_hidden_states: { why: 'the model has no encoder', off: [null] },
};

/** What forward() of a backbone takes. */
export const BACKBONE_TABLE = new OptionTable<BackboneInputs>('forward()', BACKBONE_RULES, { others: OTHERS });

/** What forward() of a causal language model takes. */
export const FORWARD_TABLE = new OptionTable<CausalLMInputs>(
  'forward()',
  { ...BACKBONE_RULES, labels: { kind: anything }, logits_to_keep: { kind: kinds.integer({ min: 0 }), default: 0 } },
  {
    others: OTHERS,
    clashes: [
      {
        option: 'logits_to_keep',
        when: ({ labels, logits_to_keep }) => labels !== undefined && logits_to_keep !== 0,
        why: 'and labels are given, which need all logits: leave it out',
      },
    ],
  },
);

/** What prefill() takes beside the prompt. */
export const PREFILL_TABLE = new OptionTable<PrefillOptions>(
  'prefill()',
  {
    tokenizer: { kind: kinds.having('a Tokenizer', 'encode', 'decode') },
    add_special_tokens: { kind: boolean },
    state: { kind: kinds.having('a state of this model', 'clone', 'dispose') },
    signal: { kind: kinds.abortSignal },
    on_progress: { kind: kinds.func },
  },
  { others: { cache: 'state', past_key_values: 'state', progress_callback: 'on_progress' } },
);
