/** What the calls of our layers take beside their inputs, by tables: the faces of layers check by them before they look at anything else. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import type { MixerOptions } from './mixer.js';

/** A tensor, of a program that is being traced too. @param axes its shape in letters: 'b, t' */
export function tensorOf(axes: string): kinds.Kind {
  return kinds.named(`a tensor [${axes}]`, (v) => v instanceof tf.Tensor && v.rank === axes.split(', ').length);
}

/** A state as a call returned it: tensors conv and ssm. */
const state = kinds.named(
  'a state that a call returned: { conv, ssm }',
  (v) => kinds.isPlain(v) && tensorOf('b, k-1, c').ok(v.conv) && tensorOf('b, h, p, n').ok(v.ssm),
);

const MIXER_OPTIONS: OptionRules<MixerOptions> = {
  state: { kind: state },
  mask: { kind: tensorOf('b, t') },
  segments: { kind: tensorOf('b, t') },
  inputScale: { kind: tensorOf('b, t, 1') },
  bf16Scan: { kind: kinds.boolean, default: false },
  chunkSize: { kind: kinds.integer({ min: 1 }) },
  mergeStep: { kind: kinds.boolean },
};

/** Names of Keras, of Hugging Face's forward() and of mamba_ssm's. */
const OTHERS: OtherNames = {
  initial_state: 'state',
  initialState: 'state',
  cache: 'state',
  cache_params: 'state',
  inference_params: 'state',
  initial_states: 'state',
  attention_mask: 'mask',
  attentionMask: 'mask',
  seq_idx: 'segments',
  chunk_size: 'chunkSize',
  training: { why: 'the layer does the same in training', off: [true, false, null] },
};

/** The table of a call that runs a mixer. @param where 'Mamba2Mixer.forward()' */
export function mixerOptions(where: string): OptionTable<MixerOptions> {
  return new OptionTable<MixerOptions>(where, MIXER_OPTIONS, { others: OTHERS });
}

/** Checks an object of inputs, some of which must be there. @throws ArgumentError naming what is unknown, missing or of another kind */
export function checkInputs<I extends object>(
  table: OptionTable<I>,
  inputs: I,
  needed: readonly (keyof I & string)[],
): void {
  table.checkObject(inputs);
  table.check(inputs);
  for (const name of needed) {
    if (inputs[name] !== undefined) continue;
    const { expected } = table.rules[name].kind;
    throw new ArgumentError(`${table.where} needs ${name}: ${expected}.`, { option: name, expected });
  }
}
