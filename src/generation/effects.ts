/** Options that have no effect beside the others of a call: an error, since whoever gives one believes in it. */
import { GenerationError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import type { GenerationOptions } from './options.js';

type Name = keyof GenerationOptions;

/** Options of sampling, and the value with which each does nothing anyhow. */
const OF_SAMPLING: Partial<Record<Name, unknown>> = {
  temperature: 1,
  top_k: 0,
  top_p: 1,
  min_p: 0,
  top_h: 1,
  typical_p: 1,
  epsilon_cutoff: 0,
  eta_cutoff: 0,
  seed: null,
};
const OF_BEAMS: Partial<Record<Name, unknown>> = { early_stopping: false, length_penalty: 1 };

/** What the call runs with, of the options that decide on others. */
interface Deciding {
  readonly do_sample: boolean;
  readonly num_beams: number;
  readonly whole: boolean;
}

/**
 * @param asked the options of the call itself; what the model's own configuration sets is not judged
 * @throws GenerationError naming the option and what it needs
 */
export function checkEffects(asked: Readonly<GenerationOptions>, { do_sample, num_beams, whole }: Deciding): void {
  if (!do_sample) refuse(asked, OF_SAMPLING, 'do_sample: true');
  if (num_beams === 1) refuse(asked, OF_BEAMS, 'num_beams above 1');
  if (!whole) refuse(asked, { output_scores: false, output_logits: false }, 'return_dict_in_generate: true');
  if (asked.use_cache === false) {
    throw new GenerationError(
      'use_cache is false, which cannot be had: a recurrent state is always carried along, and gives the same text. Leave it out.',
      { option: 'use_cache', got: false },
    );
  }
}

function refuse(asked: Readonly<GenerationOptions>, idle: Partial<Record<Name, unknown>>, needed: string): void {
  for (const [name, off] of Object.entries(idle) as [Name, unknown][]) {
    const value = asked[name];
    if (value === undefined || value === null || value === off) continue;
    throw new GenerationError(
      `${name} is ${quote(value)}, which has no effect without ${needed}. Set that too, or leave ${name} out.`,
      { option: name, got: value, needed },
    );
  }
}
